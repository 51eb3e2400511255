"""A decision between a call and none: where it is made, and the tokens of each way."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CallDecision:
    """A choice between a call and none.

    `kind`: "first", where a reply begins: calls or text; "another", behind a call: another one or
    the end. `states` of the automaton are where it is made; `calls` are the tokens that go on with
    a call, `unclear` those that both ways may begin with. `bias` is added to a call's log odds.
    """

    kind: Literal["first", "another"]
    states: tuple[int, ...]
    calls: tuple[int, ...]
    unclear: tuple[int, ...] = ()
    bias: float = 0.0


def states_behind_calls(decisions: Iterable[CallDecision]) -> list[int]:
    """Return the states behind a call."""
    return [state for one in decisions if one.kind == "another" for state in one.states]
