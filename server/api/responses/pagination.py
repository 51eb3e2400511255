"""Pages of a list, as OpenAI's list endpoints have them."""

from collections.abc import Mapping, Sequence

from falsework.server.types import Json

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def paginate(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    """Return a page of items, the newest first unless the query asks for another order."""
    ordered = list(items) if query.get("order") == "asc" else list(items)[::-1]
    ids = [item.get("id") for item in ordered]
    begin = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    given = query.get("limit", "")
    limit = min(max(int(given), 1), MAX_LIMIT) if given.isdecimal() else DEFAULT_LIMIT
    page = ordered[begin : begin + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin + limit < len(ordered),
    }
