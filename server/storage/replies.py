"""The reply of a keyed request, as it is stored for a retry."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from falsework.server.types import Json


@dataclass(frozen=True)
class StoredReply:
    """One of: the body of a reply, the events of a stream, the response whose events are streamed.

    `deleted` stands for a reply whose response was deleted: the key stays taken.
    """

    body: Json | None = None
    events: Sequence[Json] | None = None
    response_id: str | None = None
    deleted: bool = False

    def dump(self) -> str:
        """Return it as text."""
        fields = {
            "json": self.body,
            "events": self.events and list(self.events),
            "response": self.response_id,
            "deleted": self.deleted or None,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None})

    @classmethod
    def load(cls, text: str) -> Self:
        """Return the reply that a text holds."""
        fields = json.loads(text)
        return cls(
            fields.get("json"),
            fields.get("events"),
            fields.get("response"),
            bool(fields.get("deleted")),
        )


TOMBSTONE = StoredReply(deleted=True)
