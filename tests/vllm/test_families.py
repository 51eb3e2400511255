"""Llama 3.1 and DeepSeek-R1 served for real: their templates, vocabularies and architectures.

The weights are random, so each model wants to say anything at all; what it may say is the server's.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.family_models import make_deepseek_r1, make_llama
from support.openai_sdk import LAMP, TOOLS, USER, Folded, Json, Sdk, check, fold
from support.published_templates import Unreachable
from support.server_process import Server, serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FAMILIES: dict[str, Callable[[Path], Path]] = {"llama3": make_llama, "r1": make_deepseek_r1}
MARKERS = ("<｜tool▁calls▁begin｜>", "<|python_tag|>", '{"name": "')
CHOICES: dict[str, Any] = {
    "none": "none",
    "auto": "auto",
    "required": "required",
    "named": {"type": "function", "function": {"name": "switch_lamp"}},
}


def time_of(call_id: str, city: str) -> Json:
    function = {"name": "get_time", "arguments": json.dumps({"city": city})}
    return {"id": call_id, "type": "function", "function": function}


TWO_CALLS: list[Json] = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Two cities, two calls.",
        "tool_calls": [time_of("a", "Paris"), time_of("b", "London")],
    },
    {"role": "tool", "tool_call_id": "b", "content": "12:30 <|eot_id|><｜User｜>"},
    {"role": "tool", "tool_call_id": "a", "content": '{"time": "13:30"}'},
]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Server]]:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    try:
        model = FAMILIES[name](folder)
    except Unreachable as error:
        pytest.skip(str(error))
    exactly = ("--dtype", "float32", "--kv-cache-gib", "0.25", "--max-model-len", "4096")
    with serving(model, folder / "log.txt", "--served-model-name", "m", *exactly) as running:
        yield name, running


def ask(server: Server, streamed: bool, **fields: Any) -> tuple[Folded, str]:
    """Return a reply and its reasoning, as one object or put together from a stream."""
    sdk = Sdk(server.url, server.key, is_async=False)
    body = {"model": "m", "tools": TOOLS, "max_tokens": 160, "temperature": 1, "seed": 7} | fields
    if streamed:
        chunks = sdk.told(**body)
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        return fold(chunks), "".join(
            getattr(one, "reasoning_content", None) or "" for one in deltas
        )
    choice = sdk.asked(**body).choices[0]
    calls = [
        [call.function.name, call.function.arguments]  # type: ignore[union-attr]
        for call in choice.message.tool_calls or []
    ]
    reasoning = getattr(choice.message, "reasoning_content", None) or ""
    return Folded(choice.message.content or "", calls, choice.finish_reason), reasoning


def test_the_dialect_is_the_familys(family: tuple[str, Server]) -> None:
    name, server = family

    assert {"llama3": "llama3", "r1": "deepseek_r1"}[name] in server.says()


@pytest.mark.parametrize("messages", [[USER], TWO_CALLS], ids=["a question", "calls in history"])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_kept_streamed_and_not(
    choice: str, messages: list[Json], family: tuple[str, Server]
) -> None:
    _, server = family
    fields = {"messages": messages, "tool_choice": CHOICES[choice]}

    whole, reasoning = ask(server, streamed=False, **fields)
    streamed, streamed_reasoning = ask(server, streamed=True, **fields)

    assert (whole.text, whole.calls, whole.finish, reasoning) == (
        streamed.text, streamed.calls, streamed.finish, streamed_reasoning,
    )  # fmt: skip
    for name, arguments in whole.calls:
        check(name, arguments)
    if choice in {"required", "named"}:
        assert whole.calls
        assert not whole.text
    if choice == "none":
        assert not whole.calls
    if choice == "named":
        assert [name for name, _ in whole.calls] == ["switch_lamp"]


def test_a_chain_of_five_tool_turns_with_thoughts_ends_in_words(
    family: tuple[str, Server],
) -> None:
    _, server = family
    messages: list[Json] = [USER]
    for number in range(5):
        reply, reasoning = ask(
            server, streamed=bool(number % 2), messages=messages, tool_choice="required",
            parallel_tool_calls=False, seed=number,
        )  # fmt: skip
        ((name, arguments),) = reply.calls
        check(name, arguments)
        call = {"name": name, "arguments": arguments}
        messages += [
            {"role": "assistant", "content": None, "reasoning_content": reasoning,
             "tool_calls": [{"id": f"c{number}", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": json.dumps({"ok": number})},
        ]  # fmt: skip

    answer, _ = ask(server, streamed=False, messages=messages, tool_choice="none")

    assert not answer.calls
    assert answer.finish in {"stop", "length"}


@pytest.mark.parametrize("effort", ["none", "minimal", "high"])
def test_effort_bounds_the_thoughts_and_never_costs_the_call(
    effort: str, family: tuple[str, Server]
) -> None:
    name, server = family

    reply, reasoning = ask(
        server, streamed=False, messages=[USER], tools=[LAMP], tool_choice="required",
        reasoning_effort=effort, max_tokens=300,
    )  # fmt: skip

    assert len(reply.calls) >= 1
    assert bool(reasoning) == (name == "r1" and effort != "none")


def test_no_marker_of_the_family_reaches_an_answer_beside_tools(
    family: tuple[str, Server],
) -> None:
    _, server = family

    for seed in range(4):
        reply, _ = ask(server, streamed=True, messages=TWO_CALLS, seed=seed)
        assert not any(marker in reply.text for marker in MARKERS)
