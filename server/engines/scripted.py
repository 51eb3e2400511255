"""An engine that says given texts, cut as given: for whatever concerns text and not a model."""

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
    """What is said in one choice: its pieces, a token each, and how it ends.

    `hang` says the pieces and then nothing more until it is closed; `gone` loses the engine;
    `mute` ends without saying so.
    """

    pieces: Sequence[str]
    finish: Literal["stop", "length", "error", "hang", "gone", "mute"] = "stop"


class ScriptedEngine:
    """Says line i in choice i, the lines in turn, and remembers what it was asked.

    A line is a whole reply: what the prompt has said of it already isn't said again.
    """

    def __init__(
        self, *lines: ScriptedReply, cached_tokens: int = 0, turns: Sequence[ScriptedReply] = ()
    ) -> None:
        """`turns` are said one a request, the last one again and again; otherwise `lines`."""
        self.lines = lines
        self._turns = list(turns)
        self._cached_tokens = cached_tokens
        self.asked: list[tuple[tuple[int, ...], SamplingParams, Constraint | None]] = []
        self.open = 0
        self.alive = True
        self.answers = True

    async def check_health(self) -> None:
        """Return while it lives and answers."""
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
        """Say the lines, a piece of each in turn."""
        del request_id
        await self.check_health()
        self.asked.append((tuple(prompt), sampling, constraint))
        if self._turns:
            self.lines = (self._turns[min(len(self.asked), len(self._turns)) - 1],)
        self.open += 1
        try:
            opening = constraint.opening if constraint else ""
            async for piece in self._say(sampling, opening):
                yield piece
        finally:
            self.open -= 1

    async def close(self) -> None:
        """End its life."""
        self.alive = False

    async def _say(self, sampling: SamplingParams, opening: str) -> AsyncGenerator[OutputDelta]:
        whole = [self.lines[i % len(self.lines)] for i in range(sampling.n)]
        lines = [_behind(line, opening) for line in whole]
        longest = max(len(line.pieces) for line in lines)
        for at in range(longest):
            for choice, line in enumerate(lines):
                if at < len(line.pieces):
                    await asyncio.sleep(0)
                    yield self._piece(choice, line.pieces[at], sampling)
        for choice, line in enumerate(lines):
            if line.finish in FINISHES:
                yield await FINISHES[line.finish](choice)

    def _piece(self, choice: int, text: str, sampling: SamplingParams) -> OutputDelta:
        token = TokenLogprob(text, -0.5, text.encode())
        logprobs = () if sampling.logprobs is None else (token,)
        return OutputDelta(choice, text, 1, logprobs, cached_tokens=self._cached_tokens)


def _behind(line: ScriptedReply, opening: str) -> ScriptedReply:
    """Return the line without an opening; its cuts stay where they are."""
    pieces = []
    for piece in line.pieces:
        said = piece[: len(opening)]
        if not opening.startswith(said):
            said = ""
        opening = opening[len(said) :]
        if piece[len(said) :]:
            pieces.append(piece[len(said) :])
    return replace(line, pieces=pieces)


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
