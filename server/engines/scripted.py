"""An engine that replays given replies in given deltas, for tests that need no model."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from falsework.server.engines.base import (
    Constraint,
    EngineDeadError,
    OutputDelta,
    SamplingParams,
    TokenLogprob,
)


@dataclass(frozen=True)
class ScriptedReply:
    """The text of one choice: its deltas, a token each, and how it ends.

    `hang` yields the deltas and then waits until it is closed; `gone` raises EngineDeadError;
    `mute` ends without a finish.
    """

    pieces: Sequence[str]
    finish: Literal["stop", "length", "error", "hang", "gone", "mute"] = "stop"


class ScriptedEngine:
    """Replays reply i in choice i, deltas interleaved, and records its requests.

    Each reply is given whole: a forced prefix that the prompt ends with isn't repeated.
    """

    def __init__(
        self, *lines: ScriptedReply, cached_tokens: int = 0, turns: Sequence[ScriptedReply] = ()
    ) -> None:
        """`turns` are replayed one a request, the last one from then on; otherwise `lines`."""
        self.lines = lines
        self._turns = list(turns)
        self._cached_tokens = cached_tokens
        self.asked: list[tuple[tuple[int, ...], SamplingParams, Constraint | None]] = []
        self.open = 0
        self.alive = True
        self.answers = True

    @property
    def is_dead(self) -> bool:
        """Whether it isn't `alive`."""
        return not self.alive

    async def check_health(self) -> None:
        """Return while `alive`; wait forever unless `answers`."""
        if not self.answers:
            await asyncio.Event().wait()
        if not self.alive:
            raise EngineDeadError("The engine was closed.")

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        """Yield the deltas of all choices, one of each in turn."""
        del request_id
        await self.check_health()
        self.asked.append((tuple(prompt), sampling, constraint))
        if self._turns:
            self.lines = (self._turns[min(len(self.asked), len(self._turns)) - 1],)
        self.open += 1
        try:
            opening = constraint.opening if constraint else ""
            async for delta in self._replay(sampling, opening):
                yield delta
        finally:
            self.open -= 1

    async def close(self) -> None:
        """Make later requests raise EngineDeadError."""
        self.alive = False

    async def _replay(self, sampling: SamplingParams, opening: str) -> AsyncGenerator[OutputDelta]:
        lines = [self.lines[i % len(self.lines)] for i in range(sampling.n)]
        replies = [_behind(line, opening) for line in lines]
        for at in range(max(len(reply.pieces) for reply in replies)):
            for choice, reply in enumerate(replies):
                if at < len(reply.pieces):
                    await asyncio.sleep(0)
                    yield self._delta(choice, reply.pieces[at], sampling)
        for choice, reply in enumerate(replies):
            if reply.finish in FINISHES:
                yield await FINISHES[reply.finish](choice)

    def _delta(self, choice: int, text: str, sampling: SamplingParams) -> OutputDelta:
        token = TokenLogprob(text, -0.5, text.encode())
        logprobs = () if sampling.logprobs is None else (token,)
        return OutputDelta(choice, text, 1, logprobs, cached_tokens=self._cached_tokens)


def _behind(reply: ScriptedReply, prefix: str) -> ScriptedReply:
    """Return the reply without its forced prefix; the deltas keep their limits."""
    pieces = []
    for piece in reply.pieces:
        repeated = piece[: len(prefix)]
        if not prefix.startswith(repeated):
            repeated = ""
        prefix = prefix[len(repeated) :]
        if piece[len(repeated) :]:
            pieces.append(piece[len(repeated) :])
    return replace(reply, pieces=pieces)


async def _stop(choice: int) -> OutputDelta:
    return OutputDelta(choice, "", 1, finish="stop")


async def _length(choice: int) -> OutputDelta:
    return OutputDelta(choice, "", 0, finish="length")


async def _error(choice: int) -> OutputDelta:
    return OutputDelta(choice, "", 0, finish="error")


async def _hang(choice: int) -> OutputDelta:
    await asyncio.Event().wait()
    return await _error(choice)


async def _gone(_: int) -> OutputDelta:
    raise EngineDeadError("The engine died while it decoded the reply.")


FINISHES: Mapping[str, Callable[[int], Awaitable[OutputDelta]]] = {
    "stop": _stop,
    "length": _length,
    "error": _error,
    "hang": _hang,
    "gone": _gone,
}
