"""The nouns that every room shares: a tool, a call of it, what is heard while a reply arrives."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from falsework.grammars.text_grammar import TextGrammar


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    """Where the client wrote the schema, for error messages: `tools[0].function.parameters`."""
    strict: bool = False
    """Every keyword has to be enforced while decoding, or the schema is refused."""
    foreign: bool = False
    """Its schema is none of the client's: an MCP server wrote it, or the operator."""
    custom: bool = False
    """A tool of free text: its one argument is `input`."""
    grammar: TextGrammar | None = None
    """What a custom tool's text may be. It is said as it is, no JSON, and ends the reply."""

    @cached_property
    def schema_text(self) -> str:
        """`parameters` as JSON text, which is what equal tools are known by."""
        return json.dumps(self.parameters)


@dataclass(frozen=True)
class Call:
    """One call; `arguments` is JSON text exactly as it was said, never re-serialised."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of the think block."""

    text: str


@dataclass(frozen=True)
class Text:
    """A piece of the answer that the user sees."""

    text: str


@dataclass(frozen=True)
class CallBegins:
    """Call number `index` of this reply (from 0) names its tool."""

    index: int
    name: str


@dataclass(frozen=True)
class Arguments:
    """A piece of the arguments' JSON text of call number `index`."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnds:
    """Call number `index` is complete: its arguments satisfy its tool's schema."""

    index: int


Event = Reasoning | Text | CallBegins | Arguments | CallEnds
