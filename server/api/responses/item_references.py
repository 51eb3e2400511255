"""Items that a request names instead of sending them again; an id names its response."""

from collections.abc import Sequence

from falsework.server.api.responses.item_schema import ItemReference, is_reference
from falsework.server.api.responses.object import response_id_of_item
from falsework.server.api.validation import validate
from falsework.server.errors import MAX_QUOTED, BadRequestError
from falsework.server.storage import Store
from falsework.server.types import Json


async def resolve_references(items: Sequence[Json], owner: str, store: Store) -> list[Json]:
    """Return the items, those that are only named taken from this owner's stored responses."""
    known: dict[str, Json] = {}
    seen: set[str] = set()
    for position, item in enumerate(items):
        if not is_reference(item):
            continue
        item_id = validate(ItemReference, item, ("input", position)).id
        response_id = response_id_of_item(item_id)
        stored = None
        if response_id not in seen:
            stored = await store.responses.get(owner, response_id)
        seen.add(response_id)
        if stored:
            known |= {kept["id"]: kept for kept in (*stored.input, *stored.body["output"])}
        if item_id not in known:
            message = f"Item with id '{item_id[:MAX_QUOTED]}' not found."
            raise BadRequestError(message, f"input[{position}].id", "item_not_found")
    return [known[item["id"]] if is_reference(item) else item for item in items]
