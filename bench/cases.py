"""The requests that are timed, the same for every server.

They are what an example of the SDK sends: neither `strict`, `parallel_tool_calls` nor `max_tokens`,
no bound on a string. Only texts have a limit, so that all servers write as many tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

CROWD_SIZE = 50
"""Requests of a crowd."""


@dataclass(frozen=True)
class Case:
    """One request, or a chain of them: `results[i]` is the tool result after call i."""

    name: str
    goal: float
    """The ratio to the other server's time to be reached, for the table."""
    request: Json
    vllm: Mapping[str, Any] = field(default_factory=dict)
    """Request fields that vLLM's own server needs, so that the work is the same."""
    results: tuple[str, ...] = ()
    crowd: int = 0
    """Clients at once, with CROWD_SIZE requests in all, each with a tool of its own."""


def tool(name: str, description: str, **properties: Any) -> Json:
    """Return a function tool all of whose properties are required."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TEXT = {"type": "string"}
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
    tool(
        f"lookup_{thing}",
        f"Look up the {thing} of a customer.",
        customer=TEXT,
        year={"type": "integer"},
        archived={"type": "boolean"},
        language={"type": "string", "enum": ["english", "french", "german"]},
    )
    for thing in (
        "address",
        "balance",
        "birthday",
        "contract",
        "country",
        "currency",
        "discount",
        "email",
        "history",
        "invoice",
        "language",
        "manager",
        "note",
        "phone",
        "rating",
        "region",
        "status",
        "tariff",
        "title",
    )
]
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
        "first_name",
        "last_name",
        "age",
        "city",
        "country",
        "employed",
        "height_in_metres",
        "favourite_colour",
    ],
    "additionalProperties": False,
}


STORY = "Tell me a long story about a lighthouse."


def _asked(text: str, **fields: Any) -> Json:
    return {"messages": [_user(text)], "temperature": 0, **fields}


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


def _calling(name: str, *several: Json) -> Json:
    """Return an example of calls, as text: so models see it whose template knows no tools."""
    calls = [{"name": name, "arguments": arguments} for arguments in several]
    texts = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls]
    return {"role": "assistant", "content": "\n".join(texts)}


def _thrice(first: str, second: str, third: str) -> Json:
    return _user(
        f"Call get_weather three times: for {first}, for {second} and for {third}, in celsius."
    )


def _called_for(*cities: str) -> list[Json]:
    weathers = [{"city": city, "unit": "celsius"} for city in cities]
    return [_thrice(*cities), _calling("get_weather", *weathers)]


def named_tool_choice(name: str) -> Json:
    """Return the tool_choice of one function."""
    return {"type": "function", "function": {"name": name}}


CASES = (
    Case(
        "named call, 1 tool, 2 arguments",
        0.25,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice=named_tool_choice("get_weather"),
        ),
    ),
    Case(
        "required call, 1 tool, 2 arguments",
        0.25,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice="required",
        ),
    ),
    Case(
        "required call, 20 tools, 4 arguments",
        0.35,
        _asked(
            "Order 3 lamps, express, paid by card. Use place_order.",
            tools=[*LOOKUPS, ORDER],
            tool_choice="required",
        ),
    ),
    Case(
        "three calls in one reply",
        0.35,
        {
            **_asked("", tools=[WEATHER], tool_choice="required", parallel_tool_calls=True),
            "messages": [
                *_called_for("Berlin", "Madrid", "Vienna"),
                *_called_for("Lisbon", "Prague", "Athens"),
                _thrice("Paris", "Rome", "Oslo"),
            ],
        },
        vllm={"min_tokens": 80},  # without it its reply ends after one call
    ),
    Case(
        "three-step chain, client executes",
        0.45,
        _asked(
            "Compare the weather of Paris, Rome and Oslo, in celsius.",
            tools=[WEATHER],
            tool_choice=named_tool_choice("get_weather"),
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
                "json_schema": {"name": "person", "schema": PERSON},
            },
        ),
    ),
    Case("free text, 256 tokens", 1.03, _asked(STORY, max_tokens=256)),
    Case(
        "text beside a tool that isn't called, 256 tokens",
        1.03,
        _asked(STORY, tools=[WEATHER], max_tokens=256),
    ),
    Case(
        f"{CROWD_SIZE} calls, 16 clients at once, {CROWD_SIZE} tools",
        0.5,
        _asked(
            "What is the weather in Paris, in celsius?",
            tools=[WEATHER],
            tool_choice="required",
        ),
        crowd=16,
    ),
)


def crowd_requests(case: Case) -> list[Json]:
    """Return the requests of a crowd: number i asks for a tool that only it knows."""
    (asked,) = case.request["tools"]
    return [
        {**case.request, "tools": [{**asked, "function": {**asked["function"], "name": name}}]}
        for name in (f"get_weather_{number}" for number in range(CROWD_SIZE))
    ]


def next_request(request: Json, message: Mapping[str, Any], result: str) -> Json:
    """Return the next request of a chain: the calls of `message`, each answered by `result`."""
    calls = message["tool_calls"]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": c["id"], "content": result} for c in calls]
    return {**request, "messages": [*request["messages"], said, *results]}
