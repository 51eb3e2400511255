"""A conversation as nouns: what the client said happened so far."""

from dataclasses import dataclass
from typing import Literal

from falsework.grammars.events import Call


@dataclass(frozen=True)
class Message:
    """One message; `system` also stands for `developer`.

    `calls` only for the assistant, in order; `call_id` only for `tool` messages: the id of the
    call that the message answers. `call_ids` are the ids of `calls`, in the same order.
    """

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[Call, ...] = ()
    call_ids: tuple[str, ...] = ()
    call_id: str = ""
    name: str = ""
    reasoning: str = ""
