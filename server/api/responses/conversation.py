"""A conversation while its items are read, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
from falsework.server.api.call_pairing import Entry, PairingErrors
from falsework.server.errors import BadRequestError


@dataclass
class Conversation:
    """Messages so far; calls and reasoning wait for the assistant's message that holds them.

    `tools` are the names of the server's tools.
    """

    entries: list[Entry] = field(default_factory=list)
    param: str = "input"
    """The field of the item that is being read."""
    past: bool = False
    """Whether the user has asked something else since."""
    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    tools: frozenset[str] = frozenset()

    def add(self, message: Message) -> None:
        """Add a message that is no assistant's, behind the assistant's turn."""
        self.close()
        self.entries.append(Entry(message, self.param))

    def close(self) -> None:
        """End the assistant's turn: its text, its calls, and the results that came so far."""
        if self.text or self.calls or self.reasoning:
            calls, call_ids = tuple(self.calls), tuple(self.call_ids)
            turn = Message("assistant", self.text, calls, call_ids, reasoning=self.reasoning)
            self.entries.append(Entry(turn, self.param))
        self.entries += [Entry(result, self.param) for result in self.results]
        self.reasoning, self.text = "", ""
        self.calls, self.call_ids, self.results = [], [], []

    @property
    def answered(self) -> bool:
        """Whether there are as many results as calls."""
        return len(self.results) >= len(self.calls)

    def call(self, call_id: str | None, name: str, arguments: str) -> None:
        """Add a call to the turn; one after all results begins another turn."""
        if self.results and self.answered:
            self.close()
        self.calls.append(Call(name, arguments or "{}"))
        self.call_ids.append(call_id or "")

    def result(self, call_id: str | None, text: str) -> None:
        """Add the result of a call, of this turn or of an earlier one."""
        message = Message("tool", text, call_id=call_id or "")
        if not self.calls or self.answered:
            self.close()
            self.entries.append(Entry(message, self.param))
        else:
            self.results.append(message)


def _orphan(entry: Entry, _: frozenset[str]) -> BadRequestError:
    call_id = entry.message.call_id[:100]
    message = f"No tool call found for function call output with call_id {call_id}."
    return BadRequestError(message, f"{entry.param}.call_id")


def _unanswered(ids: Sequence[str], _: int) -> BadRequestError:
    return BadRequestError(f"No tool output found for function call {ids[0][:100]}.", "input")


ERRORS = PairingErrors(_orphan, _unanswered)
"""What OpenAI's API says."""
