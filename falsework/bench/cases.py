"""The requests that are timed, the same for every server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One request, or a chain of them: after each call the client says `results[i]`."""

    name: str
    goal: float
    """The share of the other server's time to reach, for the table."""
    request: Json
    results: tuple[str, ...] = ()
    crowd: int = 0
    """So many clients at once, three requests each, each of them with a tool of its own."""


def tool(name: str, description: str, **properties: Any) -> Json:
    """Return a function tool all of whose properties are required."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {**function, "strict": True}}


TEXT = {"type": "string", "maxLength": 24}
WEATHER = tool(
    "get_weather",
    "Get the weather of a city.",
    city=TEXT,
    unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
)
ORDER = tool(
    "place_order",
    "Order an article for a customer.",
    article=TEXT,
    quantity={"type": "integer"},
    express={"type": "boolean"},
    payment={"type": "string", "enum": ["card", "invoice", "transfer"]},
)
LOOKUPS = [
    tool(f"lookup_{thing}", f"Look up the {thing} of a customer.", customer=TEXT)
    for thing in (
        "address", "balance", "birthday", "contract", "country", "currency", "discount", "email",
        "history", "invoice", "language", "manager", "note", "phone", "rating", "region", "status",
        "tariff", "title",
    )
]  # fmt: skip
PERSON = {
    "type": "object",
    "properties": {
        "first_name": TEXT,
        "last_name": TEXT,
        "age": {"type": "integer"},
        "city": TEXT,
        "country": {"type": "string", "enum": ["France", "Italy", "Spain"]},
        "employed": {"type": "boolean"},
        "height_in_metres": {"type": "number"},
        "favourite_colour": {"type": "string", "enum": ["blue", "green", "red"]},
    },
    "required": [
        "first_name", "last_name", "age", "city", "country", "employed", "height_in_metres",
        "favourite_colour",
    ],
    "additionalProperties": False,
}  # fmt: skip


def _asked(text: str, **fields: Any) -> Json:
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "temperature": 0, "max_tokens": 256, **fields}


def named(name: str) -> Json:
    """Return the tool_choice of one function."""
    return {"type": "function", "function": {"name": name}}


CASES = (
    Case(
        "named call, 1 tool, 2 arguments",
        0.25,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice=named("get_weather"),
        ),
    ),
    Case(
        "required call, 1 tool, 2 arguments",
        0.25,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice="required",
            parallel_tool_calls=False,
        ),
    ),
    Case(
        "required call, 20 tools, 4 arguments",
        0.35,
        _asked(
            "Order 3 lamps, express, paid by card. Use place_order.",
            tools=[*LOOKUPS, ORDER],
            tool_choice="required",
            parallel_tool_calls=False,
        ),
    ),
    Case(
        "three calls in one reply",
        0.35,
        _asked(
            "Call get_weather three times: for Paris, for Rome and for Oslo, in celsius.",
            tools=[WEATHER],
            tool_choice="required",
        ),
    ),
    Case(
        "three-step chain, client executes",
        0.45,
        _asked(
            "Compare the weather of Paris, Rome and Oslo, in celsius.",
            tools=[WEATHER],
            tool_choice=named("get_weather"),
        ),
        results=('{"temperature": 21}', '{"temperature": 27}', '{"temperature": 9}'),
    ),
    Case(
        "response_format, object of 8 fields",
        0.5,
        _asked(
            "Invent a person.",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            },
        ),
    ),
    Case("free text, 256 tokens", 1.03, _asked("Tell me a long story about a lighthouse.")),
    Case(
        "48 calls, 16 clients at once, 48 tools",
        0.5,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice="required",
            parallel_tool_calls=False,
        ),
        crowd=16,
    ),
)


def members(case: Case) -> list[Json]:
    """Return the requests of a crowd: number i asks for a tool that only it knows."""
    (asked,) = case.request["tools"]
    return [
        {**case.request, "tools": [{**asked, "function": {**asked["function"], "name": name}}]}
        for name in (f"get_weather_{number}" for number in range(3 * case.crowd))
    ]


def following(request: Json, message: Mapping[str, Any], result: str) -> Json:
    """Return the next request of a chain: the calls of `message`, each answered by `result`."""
    calls = message["tool_calls"]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": c["id"], "content": result} for c in calls]
    return {**request, "messages": [*request["messages"], said, *results]}
