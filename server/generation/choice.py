"""One of the n choices of a reply: from the engine's output to events and a finish_reason."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from falsework.grammars.events import CallBegins, Event
from falsework.grammars.output_parser import OutputParser
from falsework.server.engines import OutputDelta, TokenLogprob
from falsework.server.errors import InternalServerError
from falsework.server.generation.call_buffer import (
    CompleteCallBuffer,
    LeadingWhitespaceFilter,
    PassThrough,
)
from falsework.server.generation.reply_limits import (
    CUTS,
    DEFAULT_LIMITS,
    EndedBy,
    ReplyLimiter,
    ReplyLimits,
)
from falsework.server.generation.stop_strings import StopStringFilter

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class ChoiceDelta:
    """What one piece of output adds to a choice; `finish` ends it.

    `thinking` tells whether the choice was within its think block before the piece, `ended_by`
    which limit of the server ended it, if one did.
    """

    choice: int
    events: tuple[Event, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    thinking: bool = False
    ended_by: EndedBy | None = None
    stopped_by: str = ""
    """The stop string that ended it, if one did."""


class ChoiceProcessor:
    """Turns the pieces of one choice into deltas; `half_calls`: calls as they are decoded."""

    def __init__(  # noqa: PLR0913 - what a reply may hold, and how it is told
        self,
        reader: OutputParser,
        stop: tuple[str, ...],
        *,
        named: bool,
        half_calls: bool = False,
        said: str = "",
        limits: ReplyLimits = DEFAULT_LIMITS,
        schema: bool = False,
    ) -> None:
        """`schema`: the answer has one."""
        self.reader = reader
        self.said = said
        """The reply's text so far."""
        self._limiter = ReplyLimiter(limits, answer=schema)
        self._stops = StopStringFilter(stop)
        self._holdback = PassThrough() if half_calls else CompleteCallBuffer()
        self._preamble = LeadingWhitespaceFilter()
        self._finish_of_calls: FinishReason = "stop" if named else "tool_calls"
        self._called = False
        self.finished = False
        self.tokens = 0
        self.reasoning_tokens = 0

    def rewind(self, reader: OutputParser, said: str) -> None:
        """Go on behind `said`, the beginning of the reply, which `reader` has read."""
        self.reader, self.said = reader, said
        self._limiter.rewind(len(reader.call_starts))
        self._holdback = CompleteCallBuffer()
        self.finished = False

    def process(self, piece: OutputDelta) -> ChoiceDelta:
        """Return what the piece adds."""
        self.said += piece.text
        thinking = self.reader.in_reasoning
        parsed = self._limiter.feed(self.reader.feed(piece.text), piece.tokens)
        self.tokens += piece.tokens
        self.reasoning_tokens += piece.tokens if thinking else 0
        events = self._send(parsed, piece)
        self._called |= any(isinstance(event, CallBegins) for event in events)
        finish = self._finish(piece)
        self.finished = finish is not None
        ended_by = None if self._stops.matched else self._limiter.ended_by
        return ChoiceDelta(
            piece.choice,
            tuple(events),
            self._logprobs(piece),
            finish,
            thinking,
            ended_by,
            self._stops.matched_string,
        )

    def _logprobs(self, piece: OutputDelta) -> tuple[TokenLogprob, ...]:
        """Return those of the tokens before a stop string: a piece may go on behind it."""
        if not self._stops.matched:
            return piece.logprobs
        at = max(0, piece.text.rfind(self._stops.matched_tail))
        ends = itertools.accumulate(len(token.bytes) for token in piece.logprobs)
        before = sum(end <= len(piece.text[:at].encode()) for end in ends)
        return piece.logprobs[:before]

    def _send(self, parsed: Sequence[Event], piece: OutputDelta) -> list[Event]:
        """Return those of the events, and of the ones held back, that may be sent now."""
        if piece.finish and not self._limiter.ended_by:
            closed = self.reader.close(complete=piece.finish == "stop")
            parsed = [*parsed, *self._limiter.feed(closed, 0)]
        unstopped = self._stops.feed(parsed)
        ended = piece.finish or self._stops.matched or self._limiter.ended_by
        if ended:
            unstopped += self._stops.close()
        events = self._preamble.feed(self._holdback.feed(unstopped))
        return events + self._preamble.close() if ended else events

    def _finish(self, piece: OutputDelta) -> FinishReason | None:
        if piece.finish == "error":
            raise InternalServerError(
                "The engine failed while it decoded the reply.", code="engine_error"
            )
        ended_by = self._limiter.ended_by
        if not (self._stops.matched or piece.finish or ended_by):
            return None
        cut = ended_by in CUTS if ended_by else piece.finish == "length"
        if cut and not self._stops.matched:
            return "length"
        return self._finish_of_calls if self._called else "stop"
