"""Replies of a model that never stops by itself end, and say why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from support.openai_sdk import fold
from support.random_model import make_random
from support.server_process import Server, serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONTEXT = 2048


def tool(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


CHOOSE = tool("choose", {"sure": {"type": "boolean"}})
ENDLESS: dict[str, dict[str, Any]] = {
    "string": {"type": "string", "pattern": "^[a-z]*$"},
    "array": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 5000},
    "text": {"type": "string", "minLength": 30_000},
}


@pytest.fixture(scope="module")
def endless(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A random model that always wants another call."""
    folder = tmp_path_factory.mktemp("endless")
    model = make_random(folder, smollm2)
    settings = ("--another-call-bias", "100", "--max-model-len", str(CONTEXT))
    fast = ("--dtype", "float32", "--kv-cache-gib", "0.25")
    with serving(model, folder / "log.txt", *settings, *fast) as running:
        yield running


@pytest.fixture
def client(endless: Server) -> OpenAI:
    return OpenAI(base_url=f"{endless.url}/v1", api_key=endless.key, max_retries=0, timeout=300)


def asked(client: OpenAI, offered: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return what a request asks for."""
    (model,) = [one.id for one in client.models.list()]
    message = {"role": "user", "content": "Go on."}
    body = {"model": model, "messages": [message], "tools": [offered], "tool_choice": "required"}
    return {**body, **fields}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_calls_that_repeat_themselves_end_streamed_and_not(
    client: OpenAI, temperature: float
) -> None:
    body = asked(client, CHOOSE, temperature=temperature, seed=5)

    reply = client.chat.completions.create(**body)
    stream = list(client.chat.completions.create(**body, stream=True))

    choice = reply.choices[0]
    made = [call.function.arguments for call in choice.message.tool_calls]
    assert 1 <= len(made) <= 2, "there are two different calls"
    assert len({*made}) == len(made)
    assert (choice.finish_reason, choice.stop_reason) == ("tool_calls", "repeated_call")
    assert [arguments for _, arguments in fold(stream).calls] == made
    assert stream[-1].choices[0].stop_reason == "repeated_call"
    assert reply.usage.completion_tokens < 150


def test_a_client_that_asks_for_parallel_calls_gets_sixteen_at_most(client: OpenAI) -> None:
    body = asked(client, CHOOSE, parallel_tool_calls=True, logprobs=False, seed=5)

    choice = client.chat.completions.create(**body).choices[0]

    made = [json.loads(call.function.arguments) for call in choice.message.tool_calls]
    assert len(made) <= 16
    assert choice.finish_reason == "tool_calls"


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_value_without_end_is_cut_before_the_context_is_full(client: OpenAI, kind: str) -> None:
    body = asked(client, tool("say", {"it": ENDLESS[kind]}), parallel_tool_calls=False, seed=5)

    reply = client.chat.completions.create(**body)

    choice = reply.choices[0]
    if choice.finish_reason == "length":
        assert not choice.message.tool_calls, "what was cut isn't reported"
        assert choice.stop_reason in {"max_call_tokens", "repetition"}
    assert reply.usage.total_tokens < CONTEXT - 500


def test_a_response_says_which_limit_cut_it(client: OpenAI) -> None:
    (model,) = [one.id for one in client.models.list()]
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 5000}
    form = {"type": "json_schema", "name": "list", "schema": schema}

    reply = client.responses.create(model=model, input="Go on.", text={"format": form})

    assert reply.status == "incomplete"
    assert reply.incomplete_details.reason in {"max_call_tokens", "repetition"}
    assert [one["code"] for one in reply.warnings] == [reply.incomplete_details.reason]
    assert reply.usage.total_tokens < CONTEXT - 500
