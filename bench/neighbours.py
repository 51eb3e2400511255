"""The median time of a call, alone and beside clients that attack the server.

    python bench/neighbours.py [--calls 20] [--rounds 3] [--only NAME] [--model FOLDER]

Four clients ask for calls with tools that the server hasn't seen, in turns with and without an
attack; a row tells the two medians and their ratio.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
from against_vllm import commands, running

from falsework.bench.cases import WEATHER, Json, named_tool_choice
from falsework.bench.endpoint import Endpoint
from falsework.server.models import resolve_model

VICTIMS = 4
CONNECTIONS = 70
HEADER_BYTES = 2**24
FLOOD = """
import json, sys
info = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
        "serverInfo": {"name": "flood", "version": "1"}}
replies = {"initialize": info,
           "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] == "tools/call":
        while True:
            sys.stdout.write("x" * 65536)
    if "id" in request:
        known = replies.get(request["method"])
        said = {"result": known} if known else {"error": {"code": -32601, "message": "unknown"}}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)
"""
"""An MCP server over stdio whose answer to a call is a line that doesn't end."""

Attack = Callable[[Endpoint], Coroutine[Any, Any, None]]
numbers = count()


def hostile_schemas() -> list[Json]:
    """Return schemas that are costly in ways of their own."""
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(10_000)}
    fan = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 4} for n in range(30)}
    nested: Json = {"type": "string"}
    for _ in range(48):
        nested = {"type": "object", "properties": {"a": nested, "b": nested}}
    return [
        {"$ref": "#/$defs/d0", "$defs": {**chain, "d10000": {"const": 1}}},
        {"$ref": "#/$defs/d0", "$defs": {**fan, "d30": {"type": "string"}}},
        {"type": "string", "pattern": "^(a{1,900}b{1,900}){1,900}$"},
        {"const": "x" * 100_000},
        {"enum": [f"value number {number}" for number in range(10_000)]},
        {"type": "array", "minItems": 5000, "maxItems": 9000, "items": {"type": "integer"}},
    ]


def new_call(schema: Json | None = None) -> Json:
    """Return a request for a call of a tool that no request has offered."""
    function = {**WEATHER["function"], "name": f"get_weather_{next(numbers)}"}
    if schema:
        function["parameters"] = {"type": "object", "properties": {"a": schema}}
    return {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": named_tool_choice(function["name"]),
        "max_tokens": 60,
        "temperature": 0,
    }


async def send_schemas(server: Endpoint) -> None:
    """Two clients offer hostile schemas, one after the other."""

    async def attack(schemas: list[Json]) -> None:
        async with httpx2.AsyncClient(base_url=server.base_url + "/", timeout=600) as client:
            while True:
                for schema in schemas:
                    body = {**new_call(schema), "model": server.model}
                    await client.post("chat/completions", json=body)

    schemas = hostile_schemas()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attack, schemas)
        tasks.start_soon(attack, schemas[::-1])


def _head(server: Endpoint) -> tuple[str, int, bytes]:
    address = urlsplit(server.base_url)
    assert address.hostname
    assert address.port
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
    return address.hostname, address.port, head.encode()


async def drip_bodies(server: Endpoint) -> None:
    """Many connections send a byte of a body every half second."""
    host, port, head = _head(server)
    head += b"content-type: application/json\r\ncontent-length: 9999\r\n\r\n"

    async def attack() -> None:
        while True:
            try:
                async with await anyio.connect_tcp(host, port) as stream:
                    await stream.send(head)
                    while True:
                        await stream.send(b" ")
                        await anyio.sleep(0.5)
            except (OSError, anyio.BrokenResourceError):
                await anyio.sleep(0.5)

    async with anyio.create_task_group() as tasks:
        for _ in range(CONNECTIONS):
            tasks.start_soon(attack)


async def flood_headers(server: Endpoint) -> None:
    """Many connections never end their head; one sends heads of 16 MiB."""
    host, port, head = _head(server)

    async def attack(lines: bytes, size: int) -> None:
        while True:
            try:
                async with await anyio.connect_tcp(host, port) as stream:
                    await stream.send(head)
                    for _ in range(size // len(lines)):
                        await stream.send(lines)
                    await stream.receive()
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                await anyio.sleep(0.5)

    async with anyio.create_task_group() as tasks:
        for _ in range(CONNECTIONS):
            tasks.start_soon(attack, b"x-a: b\r\n", 64)
        tasks.start_soon(attack, b"x-a: " + b"b" * 2**16 + b"\r\n", HEADER_BYTES)


async def call_noisy_server(server: Endpoint) -> None:
    """A client calls the tool of an MCP server that floods, again and again."""
    body = {
        "model": server.model,
        "input": "Go.",
        "tools": [{"type": "server_tool", "name": "noisy__t"}],
        "tool_choice": {"type": "function", "name": "noisy__t"},
        "max_output_tokens": 40,
    }
    async with httpx2.AsyncClient(base_url=server.base_url + "/", timeout=600) as client:
        while True:
            await client.post("responses", json=body)


ATTACKS: dict[str, Attack] = {
    "schemas": send_schemas,
    "slow bodies": drip_bodies,
    "heads": flood_headers,
    "noisy MCP server": call_noisy_server,
}


@asynccontextmanager
async def attacked(server: Endpoint, attack: Attack | None) -> AsyncIterator[None]:
    """Run an attack meanwhile."""
    async with anyio.create_task_group() as tasks:
        if attack:
            tasks.start_soon(attack, server)
            await anyio.sleep(1)
        yield
        tasks.cancel_scope.cancel()


async def times(server: Endpoint, calls: int) -> list[float]:
    """Return the seconds of each call, four at a time."""
    seconds: list[float] = []

    async def victim() -> None:
        while len(seconds) < calls:
            began = time.monotonic()
            await server.chat(new_call())
            seconds.append(time.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(VICTIMS):
            tasks.start_soon(victim)
    return seconds


async def measure(url: str, options: argparse.Namespace) -> None:
    """Print a row for each attack."""
    print("| attack | alone, s | attacked, s | ratio |\n|---|---|---|---|")
    async with Endpoint("Falsework", url) as server:
        await server.connect(patience=600)
        await times(server, options.calls)
        for name, attack in ATTACKS.items():
            if not re.search(options.only, name):
                continue
            alone: list[float] = []
            beside: list[float] = []
            for _ in range(options.rounds):
                for one, seconds in ((None, alone), (attack, beside)):
                    async with attacked(server, one):
                        seconds.extend(await times(server, options.calls))
            middle, attacked_middle = statistics.median(alone), statistics.median(beside)
            row = (f"{middle:.3f}", f"{attacked_middle:.3f}", f"{attacked_middle / middle:.2f}")
            print("|", " | ".join((name, *row)), "|", flush=True)


def main() -> None:
    """Run the server and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--calls", type=int, default=20, help="in a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="a regular expression of attacks' names")
    options = parser.parse_args()
    command = commands(str(options.model or resolve_model("smollm2", print)))["Falsework"]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "flood.py"
        script.write_text(FLOOD)
        entry = {"command": [sys.executable, str(script)], "tools": ["t"], "effect": "read"}
        file = Path(folder) / "tools.yaml"
        file.write_text(json.dumps({"servers": {"noisy": entry}}))
        with running("Falsework", [*command, "--tools", str(file)]) as endpoint:
            anyio.run(measure, endpoint.base_url, options)


if __name__ == "__main__":
    main()
