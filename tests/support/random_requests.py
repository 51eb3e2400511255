"""What a model that wants to say anything is asked: tools of every kind, in every tool_choice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

INTEGER, NUMBER, TRUTH = {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
WORD = {"type": "string", "maxLength": 12}
TEXT = {"type": "string"}
PERSON = {
    "type": "object",
    "properties": {"name": WORD, "born": {"type": "integer"}, "vip": TRUTH},
    "required": ["name", "vip"],
}


def tool(name: str, description: str, parameters: Json | None = None) -> Json:
    function: Json = {"name": name, "description": description}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


def takes(*required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


TOOLS = [
    tool(
        "get_weather",
        "The weather of a city.",
        takes("city", city=WORD, unit={"enum": ["celsius", "fahrenheit", "°"]}, days=INTEGER),
    ),
    tool("triangle_area", "The area of a triangle.", takes("base", "height", base=NUMBER,
         height=NUMBER, unit={"type": "string", "enum": ["cm", "m", "inch"]})),
    tool("ring_bell", "Rings the bell."),
    tool("play_song", "Plays songs.", takes("songs",
         songs={"type": "array", "items": WORD, "minItems": 1, "maxItems": 3}, shuffle=TRUTH)),
    tool("add_guest", "Invites someone.", takes("guest", guest=PERSON, plus={"items": PERSON,
         "type": "array", "maxItems": 1})),
    tool("set_alarm", "Sets an alarm.", takes("hour", "note", hour=INTEGER,
         note={"anyOf": [{"type": "string", "maxLength": 6}, {"type": "null"}]})),
    tool("book_table", "Books a table.", takes("kind", "when", kind={"const": "dinner"},
         when={"type": ["string", "null"], "maxLength": 8}, smoking={**TRUTH, "nullable": True})),
    tool("send_mail", "Sends a mail.", takes("to", "text", to=WORD, text=TEXT)),
    tool("sum_up", "Adds numbers.", takes("numbers",
         numbers={"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 4})),
    tool("tag", "Tags a file.", {"type": "object", "additionalProperties":
         {"type": "string", "maxLength": 4}}),
    tool("count_votes", "Counts votes.", takes("votes", votes={"type": "object",
         "properties": {"yes": INTEGER}, "additionalProperties": INTEGER})),
    tool("get", "Gets; its name begins another's.", takes(key={"enum": [1, "1", True, None]})),
    tool("draw_line", "Draws.", takes("from_", from_={"$ref": "#/$defs/point"},
         to={"$ref": "#/$defs/point"})
         | {"$defs": {"point": takes("x", "y", x=INTEGER, y=INTEGER)}}),
    tool("toggle", "Switches on or off.", takes("on", on=TRUTH, level={"enum": [0.5, 1, "max"]})),
]  # fmt: skip
BY_NAME = {each["function"]["name"]: each for each in TOOLS}
GROUPS = [TOOLS[:3], TOOLS[3:6], TOOLS[6:9], TOOLS[9:12], [TOOLS[0], *TOOLS[11:14]], TOOLS[2:]]

# Token numbers of the built-in model's tokenizer: < " } , newline, end of turn.
LIKES = {"44": 20, "18": 19, "109": 14, "28": 14, "198": 16, "2": 13}
BIASES: Sequence[Json | None] = [None, LIKES, LIKES]
"""Most requests like to begin calls, to end strings, to go on and to end; others rarely do."""

KINDS = ("none", "auto", "required", "named", "allowed to call", "allowed and required")
SEEDS = range(42)


@dataclass(frozen=True)
class Wish:
    """A request, and what its reply may do."""

    kind: str
    seed: int
    fields: Json
    callable: frozenset[str]

    @property
    def must_call(self) -> bool:
        return self.kind in {"required", "named", "allowed and required"}

    @property
    def alone(self) -> bool:
        """Tell whether at most one call is allowed."""
        return self.kind == "named" or self.fields["parallel_tool_calls"] is False


def wishes() -> Iterator[Wish]:
    for seed in SEEDS:
        for kind in KINDS:
            yield wish(kind, seed)


def wish(kind: str, seed: int) -> Wish:
    tools = GROUPS[seed % len(GROUPS)]
    names = [each["function"]["name"] for each in tools]
    some = names[seed % 2 :: 2]
    choice, may_call = {
        "none": ("none", []),
        "auto": ("auto", names),
        "required": ("required", names),
        "named": (named(some[-1]), some[-1:]),
        "allowed to call": (allowed("auto", some), some),
        "allowed and required": (allowed("required", some), some),
    }[kind]
    fields = {
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": seed % 4 != 0,
        "messages": [{"role": "user", "content": f"Say anything, for the {seed}th time."}],
        "max_tokens": 112,
        "temperature": 1.5,
        "seed": seed,
        "logit_bias": BIASES[seed // len(GROUPS) % len(BIASES)],
    }
    return Wish(kind, seed, fields, frozenset(may_call))


def named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, names: Sequence[str]) -> Json:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]},
    }


def schema_of(name: str) -> Json:
    """Return what the arguments of a tool must satisfy: without parameters there are none."""
    schema = BY_NAME[name]["function"].get("parameters", {"additionalProperties": False})
    return {
        **schema,
        "properties": {k: _with_null(v) for k, v in schema.get("properties", {}).items()},
    }


def _with_null(schema: Json) -> Json:
    """Say OpenAPI's `nullable` in JSON Schema's own words."""
    if schema.get("nullable") is not True:
        return schema
    return {"anyOf": [{"type": "null"}, schema]}
