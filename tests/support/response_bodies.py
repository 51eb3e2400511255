"""Responses as the official SDK asks for them, and the tools that it may name."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from support.chat_bodies import Json
from support.clients import client
from support.scripted_app import Running, calls
from support.tool_app import house_of

SCRIPT = str(Path(__file__).parent / "light_mcp_server.py")

F: Json = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "strict": False,
}

SUMS: Json = {"type": "mcp", "server_label": "sums", "require_approval": "never"}

FILE: Json = {
    "servers": {
        "sums": {"command": [sys.executable, "-S", SCRIPT], "tools": ["add"], "effect": "pure"}
    }
}

ADD = calls(("sums__add", '{"a": 2, "b": 3}'))


@contextmanager
def responding(
    scaffold: TurnBuilder, *turns: str | ScriptedReply, **more: Any
) -> Iterator[Running]:
    with house_of(scaffold, *turns, file=more.pop("file", {}), **more) as house:
        yield house


def made(house: Running, **fields: Any) -> Any:
    with client(house) as sdk:
        return sdk.responses.create(**{"model": "smollm2", "input": "Hello?", **fields})


def events_of(house: Running, **fields: Any) -> list[Any]:
    with client(house) as sdk:
        stream = sdk.responses.create(
            **{"model": "smollm2", "input": "Hello?", **fields}, stream=True
        )
        return list(stream)
