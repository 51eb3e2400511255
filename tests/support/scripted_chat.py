"""What a scripted model says, and what its client is told."""

import itertools
from typing import Any

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from support.chat_bodies import Json, tool

TOOLS = [
    tool("f", parameters={"type": "object", "properties": {"a": {"type": "string"}}}),
    tool("g"),
]
F = ("f", '{"a": "x, \\"y\\""}')
G = ("g", "{}")


def cut(text: str, at: list[int]) -> list[str]:
    edges = [0, *sorted(edge % (len(text) + 1) for edge in at), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def says(*pieces: str, finish: Any = "stop") -> ScriptedEngine:
    return ScriptedEngine(ScriptedReply(pieces, finish))


def told(reply: Json, index: int = 0) -> tuple[Any, ...]:
    """Return content, thoughts, calls and end of a whole reply."""
    choice = reply["choices"][index]
    message = choice["message"]
    said = [call["function"] for call in message.get("tool_calls", [])]
    made = [(function["name"], function["arguments"]) for function in said]
    return message["content"], message.get("reasoning"), made, choice["finish_reason"]


def folded(stream: list[Json], index: int = 0) -> tuple[Any, ...]:
    """Return the same of a stream, put together as clients do."""
    content: str | None = None
    reasoning: str | None = None
    made: list[tuple[str, str]] = []
    finish = None
    for choice in (c for chunk in stream for c in chunk["choices"] if c["index"] == index):
        delta = choice["delta"]
        if delta.get("content") is not None:
            content = (content or "") + delta["content"]
        if "reasoning" in delta:
            reasoning = (reasoning or "") + delta["reasoning"]
        for call in delta.get("tool_calls", []):
            made += [(call["function"]["name"], "")] if "id" in call else []
            name, arguments = made[call["index"]]
            made[call["index"]] = (name, arguments + call["function"]["arguments"])
        finish = choice["finish_reason"]
    return content, reasoning, made, finish
