"""What the server does before the engine, in the turns of an agent that offers many tools.

    python bench/turns.py [--model FOLDER] [--tools 100] [--runs 9] [--profile]

The server is real, its engine only notes when it is asked. Every run has tools that were
never seen before; its three turns offer the same ones, and each goes on where the last has ended.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import random
import statistics
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx2

from falsework.prompts.detection import detect_renderer
from falsework.prompts.tokenizers import build_vocabulary, load_tokenizer
from falsework.server.app import create_app
from falsework.server.engines import Constraint, OutputDelta, SamplingParams
from falsework.server.generation import TurnBuilder
from falsework.server.models import resolve_model
from falsework.server.observability import configure_logging
from falsework.server.settings import Settings

Json = dict[str, Any]

TURNS = 3
WORDS = ("city", "unit", "amount", "email", "status", "region", "limit", "title", "score", "owner")
RESULT = json.dumps([{"id": number, "status": "open", "owner": "ada"} for number in range(20)])


class NoEngine:
    """Answers with one word, and notes what it was asked and when."""

    def __init__(self) -> None:
        self.asked_at = 0.0
        self.prompt: Sequence[int] = ()
        self.constraint: Constraint | None = None

    async def check_health(self) -> None:
        """Be well."""

    async def close(self) -> None:
        """Stop nothing."""

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,  # noqa: ARG002 - the interface of an engine
        constraint: Constraint | None,
        request_id: str,  # noqa: ARG002
    ) -> AsyncGenerator[OutputDelta]:
        """Yield the word."""
        self.asked_at = time.perf_counter()
        self.prompt, self.constraint = prompt, constraint
        yield OutputDelta(0, "Nothing.", 1, finish="stop")


def tool(draw: random.Random, number: int) -> Json:
    """Return a tool of five parameters, as agents have them."""
    name = f"{draw.choice(WORDS)}_{draw.choice(WORDS)}_{draw.randrange(10**6)}_{number}"
    properties: Json = {
        "query": {"type": "string", "description": f"What to look for in {draw.choice(WORDS)}."},
        "limit": {"type": "integer", "minimum": 1, "maximum": draw.randrange(10, 1000)},
        "order": {"type": "string", "enum": draw.sample(WORDS, 3), "description": "By what."},
        "archived": {"type": "boolean", "description": "Whether old ones are listed as well."},
        "labels": {"type": "array", "items": {"type": "string"}, "description": "All have to fit."},
    }
    parameters = {"type": "object", "properties": properties, "required": ["query", "order"]}
    text = f"List each {draw.choice(WORDS)} whose {draw.choice(WORDS)} fits, the newest first."
    function = {"name": name, "description": text, "parameters": parameters}
    return {"type": "function", "function": function}


def turns(draw: random.Random, count: int) -> Iterator[bytes]:
    """Yield the bodies of one conversation's requests."""
    tools = [tool(draw, number) for number in range(count)]
    name = tools[0]["function"]["name"]
    messages: list[Json] = [{"role": "user", "content": f"What is new, {draw.randrange(10**6)}?"}]
    for number in range(TURNS):
        yield json.dumps({"model": "m", "messages": messages, "tools": tools}).encode()
        function = {"name": name, "arguments": '{"query": "new", "order": "city"}'}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": RESULT},
        ]


async def measure(options: argparse.Namespace) -> list[list[float]]:
    """Return for each turn the milliseconds from a request to the engine, one a run."""
    model = str(options.model or resolve_model("smollm2", print))
    renderer = detect_renderer(load_tokenizer(model, ""), "auto")
    renderer.prepare()
    vocabulary = build_vocabulary(renderer.tokenizer, renderer.dialect.markers)
    limits: Json = {"max_tools": options.tools, "max_body_bytes": 2**26, "log_level": "error"}
    settings = Settings(database="sqlite://", served_model_name="m", **limits)
    engine = NoEngine()
    builder = TurnBuilder(renderer, vocabulary, 10**6, think_budget=64)
    app = create_app(settings, engine, builder)
    took: list[list[float]] = [[] for _ in range(TURNS)]
    profile = cProfile.Profile()
    async with app.router.lifespan_context(app) as state:

        async def in_process(scope: Json, receive: object, send: object) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(in_process),
            base_url="http://127.0.0.1",
            headers={"content-type": "application/json"},
        )
        for run in range(options.runs + 1):
            for number, body in enumerate(turns(random.Random(run), options.tools)):
                if options.profile and number:
                    profile.enable()
                began = time.perf_counter()
                reply = await client.post("/v1/chat/completions", content=body)
                profile.disable()
                assert reply.status_code == httpx2.codes.OK, reply.text
                if run:  # the first warms up
                    took[number].append(1000 * (engine.asked_at - began))
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
    grammar = len(engine.constraint.grammar) / 1000 if engine.constraint else 0
    print(f"{options.tools} tools, {len(engine.prompt)} tokens, a grammar of {grammar:.0f} kB")
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--tools", type=int, default=100)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--profile", action="store_true", help="print where later turns' time goes")
    configure_logging("error")
    for number, times in enumerate(asyncio.run(measure(parser.parse_args()))):
        print(f"turn {number + 1}: {statistics.median(times):.1f} ms before the engine")


if __name__ == "__main__":
    main()
