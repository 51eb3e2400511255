"""An upstream that loses its answers in every way, its ledger, and a model that asks again."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio

from falsework.server.tools.results import ToolResult
from support.upstream import (
    Json,
    Seen,
    Upstream,
    call,
    hangs,
    http_tool,
    resets,
    says,
    toolbox,
    upstream,
)

ASKED_AGAIN = 3
CLIENTS = 16
QUIET = {"breaker": {"enabled": False}, "retry": {"base": "0ms"},
         "bulkhead": {"max_concurrent": 64, "max_queue": 1000}}  # fmt: skip

WAYS = {"answers": 80, "resets_first": 4, "resets_after": 4, "is_busy": 4, "hangs_after": 1,
        "acts_late": 1, "breaks": 4}  # fmt: skip
"""How it treats a write, and how often."""


@dataclass
class Ledger:
    """An upstream that counts what took effect, and loses a part of its answers.

    With a key it does nothing twice.
    """

    chance: random.Random
    done: Counter[int] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)
    late: list[asyncio.Event] = field(default_factory=list)
    """Set by those who act after their callers are gone."""

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "GET":
            number = int(seen.path.rpartition("=")[2])
            await says({"done": self.done[number]})(seen, writer)
            return
        (way,) = self.chance.choices(list(WAYS), list(WAYS.values()))
        self.met[way] += 1
        await getattr(self, way)(seen, writer)

    def doubled(self) -> list[int]:
        """Return the numbers of what was done more than once."""
        return [number for number, times in self.done.items() if times > 1]

    def act(self, seen: Seen) -> None:
        key = seen.headers.get("idempotency-key")
        if key is None or key not in self.keys:
            self.done[json.loads(seen.body)["id"]] += 1
        if key is not None:
            self.keys.add(key)

    async def answers(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.act(seen)
        await says("done")(seen, writer)

    async def resets_first(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        await resets(seen, writer)

    async def resets_after(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.act(seen)
        await resets(seen, writer)

    async def is_busy(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        await says({}, 503)(seen, writer)

    async def hangs_after(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.act(seen)
        await hangs(seen, writer)

    async def acts_late(self, seen: Seen, _: asyncio.StreamWriter) -> None:
        acted = asyncio.Event()
        self.late.append(acted)
        await asyncio.sleep(0.25)  # longer than an attempt waits
        self.act(seen)
        acted.set()

    async def breaks(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.act(seen)
        await says({}, 500)(seen, writer)


VERIFY = {"tool": "look", "arguments": {"id": "{id}"}, "matches": "result.done > `0`"}
KINDS: dict[str, Json] = {"plain": {}, "verified": {"verify": VERIFY}, "keyed": {"idempotency": {}}}


def _tools(up: Upstream) -> list[Json]:
    quick = {**QUIET, "attempt_timeout": "200ms", "deadline": "2s"}
    writes = [http_tool(up, name, method="POST", **fields, **quick)
              for name, fields in KINDS.items()]  # fmt: skip
    return [http_tool(up, **QUIET), *writes]


async def _asked(box: Any, name: str, number: int) -> list[ToolResult]:
    """Call as a model does that asks again, in a run of its own, whenever it is told it may."""
    ends: list[ToolResult] = []
    for _ in range(ASKED_AGAIN):
        ends.append(await call(box, f'{{"id": {number}}}', name))
        fault = ends[-1].envelope().get("error", {})
        if not fault.get("retryable"):
            break
    return ends


async def written(runs: int, seed: int = 10) -> tuple[Ledger, dict[int, ToolResult]]:
    """Make so many writes, each under its number; return what was done, and what was told of it."""
    ledger = Ledger(random.Random(seed))
    told: dict[int, ToolResult] = {}
    numbers, names = iter(range(runs)), list(KINDS)

    async def client(box: Any, left: Iterator[int]) -> None:
        for number in left:
            told[number] = (await _asked(box, names[number % len(names)], number))[-1]

    async with upstream(always=ledger) as up, toolbox(*_tools(up)) as box:
        async with anyio.create_task_group() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(client, box, numbers)
        for acted in ledger.late:
            await acted.wait()
    return ledger, told
