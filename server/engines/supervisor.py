"""Keeps an engine alive: one that has died is started again, a limited number of times."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import structlog

from falsework.server.engines.base import (
    Constraint,
    Engine,
    EngineDeadError,
    EngineStartError,
    OutputDelta,
    SamplingParams,
)

log = structlog.get_logger("falsework.engine")

RESTART_WINDOW = 3600.0
"""Seconds within which restarts are counted."""

POLL_SECONDS = 0.5
"""Between two looks at the engine."""

DEFAULT_START_SECONDS = 30.0
"""Retry-After while the engine restarts, until a start has been measured."""


class MortalEngine(Engine, Protocol):
    """An engine whose process may die."""

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""


class EngineSupervisor:
    """An engine that is replaced by a new one when its process dies.

    Requests that were running end with EngineDeadError, as do new ones until the engine is back:
    503 with Retry-After.
    """

    def __init__(
        self,
        engine: MortalEngine,
        start: Callable[[], Awaitable[MortalEngine]],
        *,
        max_restarts: int,
        start_seconds: float = DEFAULT_START_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Supervise `engine`; `start` makes another, at most `max_restarts` times an hour."""
        self._engine: MortalEngine | None = engine
        self._start = start
        self._max_restarts = max_restarts
        self._start_seconds = start_seconds
        self._clock = clock
        self._restarts: deque[float] = deque()
        self._restarting_since = 0.0

    async def check_health(self) -> None:
        """Return when the engine answers; raise EngineDeadError when it doesn't."""
        await self._current().check_health()

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        """Decode on the current engine."""
        engine = self._current()
        deltas = engine.generate(prompt, sampling, constraint, request_id)
        async with aclosing(deltas):
            async for delta in deltas:
                yield delta

    async def close(self) -> None:
        """Stop the current engine, if there is one."""
        if self._engine is not None:
            await self._engine.close()

    async def supervise(self) -> None:
        """Restart the engine whenever it is dead; return once that may not be done again."""
        while True:
            while self._engine is not None and not self._engine.is_dead:  # noqa: ASYNC110 - no event
                await asyncio.sleep(POLL_SECONDS)
            if not await self._restart():
                return

    async def _restart(self) -> bool:
        """Replace the engine, unless the limit is reached; whether that is so is returned."""
        began = self._clock()
        while self._restarts and self._restarts[0] <= began - RESTART_WINDOW:
            self._restarts.popleft()
        dead, self._engine, self._restarting_since = self._engine, None, began
        if dead is not None:
            await dead.close()
        if len(self._restarts) >= self._max_restarts:
            log.error("engine dead", restarts=len(self._restarts))
            return False
        self._restarts.append(began)
        log.error("engine restarting", restart=len(self._restarts), limit=self._max_restarts)
        try:
            self._engine = await self._start()
        except EngineStartError as error:
            log.error("engine start failed", error=str(error))  # noqa: TRY400 - its own log has it all
            return True
        self._start_seconds = self._clock() - began
        log.warning("engine restarted", seconds=round(self._start_seconds, 1))
        return True

    def _current(self) -> MortalEngine:
        engine = self._engine
        if engine is None or engine.is_dead:
            raise self._unavailable()
        return engine

    def _unavailable(self) -> EngineDeadError:
        elapsed = self._clock() - self._restarting_since if self._engine is None else 0.0
        wait = max(1, math.ceil(self._start_seconds - elapsed))
        error = EngineDeadError("The engine has stopped and is being restarted; try again later.")
        error.headers = {"retry-after": str(wait)}
        return error
