"""The real engine without a server, as the tests of drafts need it."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from prometheus_client import REGISTRY

from falsework.server.api.chat.request import to_generation_request
from falsework.server.api.chat.schema import parse
from falsework.server.cli.process import start_model
from falsework.server.engines.base import Constraint, Engine, OutputDelta
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.turn import PreparedTurn, TurnBuilder
from falsework.server.settings import Settings
from support.scripted_app import eventually

Json = dict[str, Any]

PERSON = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 8},
        "favourite_colour": {"enum": ["blue", "green", "red"]},
        "is_employed_at_present": {"type": "boolean"},
    },
    "required": ["first_name", "favourite_colour", "is_employed_at_present"],
    "additionalProperties": False,
}
ABOUT_A_PERSON: Json = {
    "messages": [{"role": "user", "content": "Invent a person."}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": PERSON},
    },
    "seed": 3,
}


@dataclass(frozen=True)
class Heard:
    """One choice as the engine told it, the opening in front."""

    text: str
    tokens: int
    steps: int
    finish: str | None
    cached: int
    logprobs: tuple[tuple[bytes, float], ...]


class Bare:
    """An engine and its scaffold."""

    def __init__(self, settings: Settings, engine: Engine, scaffold: TurnBuilder) -> None:
        self.settings = settings
        self.engine = engine
        self.scaffold = scaffold
        self._finished = finished_requests()

    async def turn(self, fields: Json) -> PreparedTurn:
        body = {"model": "any", "max_tokens": 64, **fields}
        return await self.scaffold.build(
            to_generation_request(parse(json.dumps(body).encode()), self.settings)
        )

    async def pieces(
        self, turn: PreparedTurn, constraint: Constraint | None = None
    ) -> AsyncIterator[OutputDelta]:
        constraint = constraint or turn.constraint
        stream = self.engine.generate(turn.prompt, turn.sampling, constraint, uuid4().hex)
        async with aclosing(stream):
            async for piece in stream:
                yield piece

    async def hear(self, fields: Json) -> list[Heard]:
        """Return the choices of a request."""
        turn = await self.turn(fields)
        pieces = [piece async for piece in self.pieces(turn)]
        self._finished += turn.sampling.n
        return [_heard(turn, [p for p in pieces if p.choice == n]) for n in range(turn.sampling.n)]

    async def hear_all(self, wishes: Sequence[Json], at_once: int = 16) -> list[list[Heard]]:
        seats = asyncio.Semaphore(at_once)

        async def one(fields: Json) -> list[Heard]:
            async with seats:
                return await self.hear(fields)

        return await asyncio.gather(*map(one, wishes))

    async def statistics(self) -> None:
        """Wait until vLLM has counted all that was heard."""
        assert await asyncio.to_thread(eventually, lambda: finished_requests() >= self._finished)

    async def steps(self, fields: Json, stop: str) -> list[ChoiceDelta]:
        """Return what a server tells of a request with a stop string."""
        turn = await self.turn(fields)
        choice = ChoiceProcessor(turn.reader(), (stop,), named=False)
        told = []
        async for piece in self.pieces(turn):
            told.append(choice.process(piece))
            if choice.finished:
                break
        return told


def _heard(turn: PreparedTurn, pieces: Sequence[OutputDelta]) -> Heard:
    return Heard(
        turn.opening.text + "".join(piece.text for piece in pieces),
        sum(piece.tokens for piece in pieces),
        len(pieces),
        pieces[-1].finish,
        max(piece.cached_tokens for piece in pieces),
        tuple((each.bytes, each.logprob) for piece in pieces for each in piece.logprobs),
    )


def counted(name: str) -> float:
    """Return what vLLM has counted in this process."""
    metrics = REGISTRY.collect()
    samples = [one.value for metric in metrics for one in metric.samples if one.name == name]
    return sum(samples)


def finished_requests() -> float:
    return counted("vllm:request_success_total")


def drafts_counted() -> tuple[float, float]:
    """Return how many tokens were drafted so far and how many of them accepted."""
    drafted = counted("vllm:spec_decode_num_draft_tokens_total")
    return drafted, counted("vllm:spec_decode_num_accepted_tokens_total")


def broken(constraint: Constraint, **fields: Any) -> Constraint:
    """Return a constraint that nobody should ever send."""
    return replace(constraint, key=uuid4().bytes, **fields)


@asynccontextmanager
async def engine(model: Path, draft_tokens: int, **settings: Any) -> AsyncIterator[Bare]:
    # In bfloat16 a logit moves by up to 0.03 with what shares its step, which turns near draws.
    wanted = {"kv_cache_gib": 0.25, "max_model_len": 4096, "dtype": "float32", **settings}
    configured = Settings(model=str(model), draft_tokens=draft_tokens, **wanted)
    decoder, scaffold = await start_model(configured, model)
    try:
        yield Bare(configured, decoder, scaffold)
    finally:
        await decoder.close()
        del decoder, scaffold
        gc.collect()  # what vLLM leaves open is complained of here, and in nobody else's test


@dataclass(frozen=True)
class Drafting:
    """An engine that drafts, and the loop in which it lives."""

    bare: Bare
    loop: asyncio.Runner

    def hear(self, **fields: object) -> list[Heard]:
        return self.loop.run(self.bare.hear({**ABOUT_A_PERSON, **fields}))


@contextmanager
def drafting_on(model: Path) -> Iterator[Drafting]:
    with asyncio.Runner() as loop:
        opened = engine(model, draft_tokens=16)
        bare = loop.run(opened.__aenter__())
        yield Drafting(bare, loop)
        loop.run(opened.__aexit__(None, None, None))
