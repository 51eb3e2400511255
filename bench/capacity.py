"""From one replica to 256, simulated: times of chains, cache hits, cost, and an upstream's fate.

    python bench/capacity.py [--seconds 300] [--report docs/scaling-figures.md]

What one replica can do is Replica's fields: measure yours and give them (--prefill, --decode, …).
capacity_outage.py has the upstream's fate.
"""

import argparse
import bisect
import hashlib
import random
import statistics
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import simpy

Process = Generator[Any, Any, None]
COUNTS = (1, 4, 16, 64, 256)
ROUTINGS = ("random", "least loaded", "session")
LOADS = (0.25, 0.5, 0.75, 0.9)
"""Shares of what replicas could do with every prefix cached."""
WARM_UP = 0.2
"""Of the simulated time: chains that began in it aren't counted."""


@dataclass(frozen=True)
class Replica:
    """What one replica was measured to do, and what it costs."""

    prefill: float = 12_000
    """Tokens of prompts a second, one prompt at a time."""
    decode: float = 45
    """Tokens a second of one reply."""
    slots: int = 48
    """Replies that are decoded at once."""
    cache: int = 400_000
    """Tokens that the prefix cache holds."""
    price: float = 2.5
    """Of an hour, in a currency of yours."""
    load_seconds: float = 180
    """From its start to its first request."""
    mtbf: float = 6 * 3600
    """Seconds between two failures of one replica."""


@dataclass(frozen=True)
class Chain:
    """A request of three calls, in a conversation that goes on."""

    turns: int = 3
    opening: int = 3_000
    """Tokens of instructions, tools and earlier talk."""
    growth: int = 400
    """Tokens that each turn adds: the call and its result."""
    call: int = 40
    """Tokens that are decoded for a call."""
    tool_seconds: float = 0.3


class Figures(NamedTuple):
    """What chains were like; hits are of the prefix tokens of the second turn and later."""

    p50: float
    p99: float
    hits: float
    per_second: float
    cost: float
    retried: float


@dataclass
class Server:
    """A replica in the simulation."""

    slots: simpy.Resource
    prefill: simpy.Resource
    cached: OrderedDict[int, int] = field(default_factory=OrderedDict)
    life: int = 0
    up: bool = True

    @property
    def load(self) -> int:
        """Requests that it has."""
        return self.slots.count + len(self.slots.queue)


class Cluster:
    """Replicas behind a router, under a load of sessions."""

    def __init__(self, count: int, routing: str, replica: Replica, chain: Chain, seed: int) -> None:
        self.world = simpy.Environment()
        self._draw = random.Random(seed)
        self._replica, self._chain, self._routing = replica, chain, routing
        self.servers = [
            Server(simpy.Resource(self.world, replica.slots), simpy.Resource(self.world))
            for _ in range(count)
        ]
        ring = [(_point(f"{each}:{node}"), each) for each in range(count) for node in range(100)]
        self._points, self._owners = map(list, zip(*sorted(ring), strict=True))
        self.times: list[tuple[float, float]] = []
        self.wanted = self.hit = self.retried = self.calls = 0

    def run(self, per_second: float, seconds: float) -> Figures:
        """Simulate chains that begin at random, so many a second."""
        self.world.process(self._arrivals(per_second))
        for server in self.servers:
            self.world.process(self._failures(server))
        self.world.run(until=seconds)
        counted = sorted(took for began, took in self.times if began >= WARM_UP * seconds)
        hourly = len(self.servers) * self._replica.price
        return Figures(
            statistics.median(counted),
            counted[int(0.99 * len(counted))],
            self.hit / max(1, self.wanted),
            self.calls / seconds,
            hourly / 3600 * seconds / max(1, self.calls) * 1000,
            self.retried / max(1, self.calls),
        )

    def _arrivals(self, per_second: float) -> Process:
        session = 0
        while True:
            yield self.world.timeout(self._draw.expovariate(per_second))
            session += 1
            self.world.process(self._chain_of(session))

    def _failures(self, server: Server) -> Process:
        while True:
            yield self.world.timeout(self._draw.expovariate(1 / self._replica.mtbf))
            server.up, server.life = False, server.life + 1
            server.cached.clear()
            yield self.world.timeout(self._replica.load_seconds)
            server.up = True

    def _chain_of(self, session: int) -> Process:
        began, chain = self.world.now, self._chain
        for turn in range(chain.turns):
            prompt = chain.opening + turn * chain.growth
            while not (done := (yield from self._turn(session, turn, prompt))):
                self.retried += 1
            self.calls += done
            tool = self._draw.lognormvariate(0, 0.5) * chain.tool_seconds
            yield self.world.timeout(tool)
        self.times.append((began, self.world.now - began))

    def _turn(self, session: int, turn: int, prompt: int) -> Generator[Any, Any, bool]:
        """Make a call; return False where the replica failed meanwhile."""
        server = self._route(session)
        life, replica = server.life, self._replica
        with server.slots.request() as slot:
            yield slot
            known = min(server.cached.get(session, 0), prompt)
            if turn:
                self.wanted += prompt - self._chain.growth
                self.hit += known
            with server.prefill.request() as turn_of:
                yield turn_of
                yield self.world.timeout((prompt - known) / replica.prefill)
            yield self.world.timeout(self._chain.call / replica.decode)
        if server.life != life:
            return False
        self._keep(server, session, prompt)
        return True

    def _keep(self, server: Server, session: int, tokens: int) -> None:
        server.cached[session] = tokens
        server.cached.move_to_end(session)
        while len(server.cached) * self._chain.opening > self._replica.cache:
            server.cached.popitem(last=False)

    def _route(self, session: int) -> Server:
        if self._routing == "random":
            return self._any()
        if self._routing == "least loaded":
            return min(self._any(), self._any(), key=lambda each: each.load)
        ranked = [each for each in self._ranked(session) if each.up] or [self._any()]
        free = (each for each in ranked if each.load < self._replica.slots)
        return next(free, ranked[0])

    def _any(self) -> Server:
        """Return a replica that is up, where there is one."""
        drawn = (self._draw.choice(self.servers) for _ in range(100))
        return next((each for each in drawn if each.up), self.servers[0])

    def _ranked(self, session: int) -> list[Server]:
        """Return a session's replica and the two that take over from it."""
        at, found = bisect.bisect(self._points, _point(str(session))), list[int]()
        while len(found) < min(3, len(self.servers)):
            owner = self._owners[at % len(self._owners)]
            found += [] if owner in found else [owner]
            at += 1
        return [self.servers[each] for each in found]


def _point(of: str) -> int:
    return int.from_bytes(hashlib.blake2b(of.encode(), digest_size=8).digest())


def most(replica: Replica, chain: Chain) -> float:
    """Return the chains a second that one replica could do with every known prefix cached."""
    prefilled = chain.opening + (chain.turns - 1) * chain.growth
    return min(
        replica.prefill / prefilled,
        replica.slots / (chain.turns * chain.call / replica.decode),
    )


def main() -> None:
    """Print the tables, and write them with the figure where a report is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="Simulated time of each run.")
    parser.add_argument("--report", type=Path, help="A page for the tables; the figure beside it.")
    for each in fields(Replica):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=float, default=each.default)
    asked = parser.parse_args()
    measured = {each.name: getattr(asked, each.name) for each in fields(Replica)}
    measured |= {name: int(measured[name]) for name in ("slots", "cache")}
    from falsework.bench.capacity_report import tables, write  # noqa: PLC0415 - it imports this

    made = tables(Replica(**measured), Chain(), asked.seconds)
    print(made.text)
    if asked.report:
        write(made, asked.report)


if __name__ == "__main__":
    main()
