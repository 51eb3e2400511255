"""Items that a request names instead of sending them again; an id tells whose item it is of."""

from falsework.server.types import Json
from collections.abc import Sequence
from typing import Any

from falsework.server.api.chat.schema import validate
from falsework.server.api.responses.item_schema import ItemReference, is_reference
from falsework.server.api.responses.object import response_id_of_item
from falsework.server.errors import BadRequestError
from falsework.server.storage.store import Store



async def resolve_references(items: Sequence[Json], owner: str, records: Store) -> list[Json]:
    """Return the items, those that are only named taken from this owner's kept responses."""
    known: dict[str, Json] = {}
    seen: set[str] = set()
    for position, item in enumerate(items):
        if not is_reference(item):
            continue
        named = validate(ItemReference, item, {}, ("input", position)).id
        of = response_id_of_item(named)
        stored = await records.get_response(owner, of) if of not in seen else None
        seen.add(of)
        if stored:
            known |= {each["id"]: each for each in (*stored.input, *stored.body["output"])}
        if named not in known:
            message = f"Item with id '{named[:100]}' not found."
            raise BadRequestError(message, f"input[{position}].id", "item_not_found")
    return [known[item["id"]] if is_reference(item) else item for item in items]
