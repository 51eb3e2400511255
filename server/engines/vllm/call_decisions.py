"""Decisions between a call and none, made by summed probability before a token is sampled.

The scheduler knows where they are made, the worker has the logits: `StepDecisions` goes from one to
the other beside the bitmask of a step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from falsework.grammars import CallDecision

NoteDecision = Callable[[int, CallDecision], None]

GREEDY = 1e-5
"""Temperatures below it are greedy for vLLM."""


@dataclass(frozen=True)
class RowDecision:
    """A decision in one row of the bitmask, at the temperature of its request (0 is greedy)."""

    calls: tuple[int, ...]
    unclear: tuple[int, ...]
    bias: float
    temperature: float


class StepDecisions:
    """The decisions of one step, by their rows of the bitmask."""

    def __init__(self) -> None:
        self.rows: dict[int, RowDecision] = {}

    def note_at(self, temperature: float) -> NoteDecision:
        """Return what notes the decisions of a request, by row, that samples at a temperature.

        One without bias at temperature 1 changes nothing, and isn't noted.
        """

        def note(row: int, decision: CallDecision) -> None:
            if decision.bias or temperature != 1:
                ways = (decision.calls, decision.unclear)
                self.rows[row] = RowDecision(*ways, decision.bias, temperature)

        return note

    def take(self) -> dict[int, RowDecision]:
        """Return the decisions, and forget them."""
        taken, self.rows = self.rows, {}
        return taken


def decide(logits: torch.Tensor, decision: RowDecision) -> None:
    """Shift a row of logits (vocabulary; masked tokens are -inf) by the ways they belong to.

    The ways - calls, text, and what may begin both - are sampled as if each were one token with the
    probability that all its tokens have, calls with `bias` more; then a token of the way as it
    would be without the others. Greedy: the best token of the best way.
    """
    way = torch.zeros(logits.shape[-1], dtype=torch.long, device=logits.device)
    for number, tokens in enumerate((decision.calls, decision.unclear), 1):
        way[torch.tensor(tokens, dtype=torch.long, device=logits.device)] = number
    shifts = torch.stack(
        [
            _shift(logits.masked_fill(way != number, -torch.inf).float(), decision, number == 1)
            for number in range(3)
        ]
    )
    logits += shifts[way].to(logits.dtype)


def _shift(logits: torch.Tensor, decision: RowDecision, is_call: bool) -> torch.Tensor:
    """Return what is added to the logits of one way, all others being -inf; 0 for an empty way."""
    temperature = decision.temperature
    score = logits.logsumexp(-1) + (decision.bias if is_call else 0.0)
    if temperature < GREEDY:
        sampled = logits.max()
    else:
        sampled = temperature * (logits / temperature).logsumexp(-1)
    shift = score - sampled
    return torch.where(torch.isfinite(shift), shift, torch.zeros_like(shift))


def apply_decisions(
    decisions: Mapping[int, RowDecision],
    scheduler_output: Any,
    grammar_output: Any,
    input_batch: Any,
    logits: torch.Tensor,
) -> None:
    """Make the decisions of a step in its logits (tokens of the batch, vocabulary)."""
    drafts = scheduler_output.scheduled_spec_decode_tokens
    begins, at = {}, 0
    for request_id in input_batch.req_ids:
        begins[request_id] = at
        at += 1 + len(drafts.get(request_id, ()))
    row = 0
    for request_id in grammar_output.structured_output_request_ids:
        for offset in range(1 + len(drafts.get(request_id, ()))):
            if row in decisions and request_id in begins:
                decide(logits[begins[request_id] + offset], decisions[row])
            row += 1
