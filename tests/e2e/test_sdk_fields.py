"""The official OpenAI SDK against the running server: fields, usage and errors."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from support.openai_sdk import CLOCK, LAMP, TOOLS, USER, Sdk, function
from support.real_tokenizers import hugging_face
from support.server_process import Server


@pytest.fixture(params=["sync", "async"])
def sdk(server: Server, request: pytest.FixtureRequest) -> Sdk:
    return Sdk(server.url, server.key, is_async=request.param == "async")


def test_usage_counts_the_prompt_and_the_reply(sdk: Sdk) -> None:
    usage = sdk.asked(max_tokens=5).usage

    assert usage is not None
    assert usage.completion_tokens == 5
    assert usage.prompt_tokens > 10
    assert usage.total_tokens == usage.prompt_tokens + 5
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_a_prompt_that_was_seen_before_is_reported_as_cached(sdk: Sdk) -> None:
    long = {"role": "user", "content": "The weather is fine today, and so it stays. " * 20}
    sdk.asked(messages=[long], max_tokens=1)

    usage = sdk.asked(messages=[long], max_tokens=1).usage

    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_a_stream_ends_with_its_usage_where_that_is_asked_for(sdk: Sdk) -> None:
    chunks = sdk.told(max_tokens=4, stream_options={"include_usage": True})

    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


def test_every_token_has_its_log_probability_and_its_alternatives(sdk: Sdk) -> None:
    choice = sdk.asked(max_tokens=6, logprobs=True, top_logprobs=3).choices[0]

    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert len(tokens) == 6
    assert (
        "".join(token.token for token in tokens).strip() == (choice.message.content or "").strip()
    )
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    assert all(math.isclose(t.logprob, t.top_logprobs[0].logprob) for t in tokens)


def test_n_choices_are_numbered(sdk: Sdk) -> None:
    reply = sdk.asked(n=2, max_tokens=8, temperature=1.5, seed=5)

    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[0].message.content != reply.choices[1].message.content


def test_a_stop_string_ends_the_reply_and_is_left_out(sdk: Sdk) -> None:
    free = sdk.asked(max_tokens=24).choices[0].message.content or ""
    stop = free[10:14]

    stopped = sdk.asked(max_tokens=24, stop=[stop]).choices[0]

    assert stopped.message.content == free[: free.index(stop)]
    assert stopped.finish_reason == "stop"


def test_the_token_limit_is_told(sdk: Sdk) -> None:
    assert sdk.asked(max_tokens=3).choices[0].finish_reason == "length"
    assert sdk.asked(max_tokens=None, max_completion_tokens=3).choices[0].finish_reason == "length"


def test_equal_seeds_give_equal_replies_and_others_give_others(sdk: Sdk) -> None:
    first, second, other = (
        sdk.asked(max_tokens=16, temperature=1.5, seed=seed).choices[0].message.content
        for seed in (7, 7, 8)
    )

    assert first == second
    assert first != other


def test_logit_bias_bars_a_token(sdk: Sdk, smollm2: Path) -> None:
    likeliest = sdk.asked(max_tokens=1).choices[0].message.content or ""
    (token,) = hugging_face(smollm2).encode(likeliest)

    biased = sdk.asked(max_tokens=1, logit_bias={str(token): -100}).choices[0].message.content

    assert biased
    assert biased != likeliest


def test_fields_that_change_nothing_here_and_unknown_ones_are_accepted(sdk: Sdk) -> None:
    reply = sdk.asked(
        max_tokens=2,
        user="me",
        store=False,
        metadata={"a": "b"},
        tools=None,
        extra_body={"a_field_of_the_future": 1, "response_format": None},
    )

    assert reply.choices[0].finish_reason == "length"


OFFERED_TWICE = [LAMP, CLOCK, LAMP]
STRANGER = {"type": "function", "function": {"name": "get_time_machine"}}
BAD_SCHEMA = [function("f", "", a={"type": "strong"})]
HARD_SCHEMA = [
    function("f", "", a={"type": "array", "items": {"type": "string"}, "uniqueItems": True})
]
HARD_SCHEMA[0]["function"]["strict"] = True

REFUSED: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str | None]] = {
    "bad temperature": ({"temperature": 3}, openai.BadRequestError, "temperature"),
    "no messages": ({"messages": []}, openai.BadRequestError, "messages"),
    "a tool twice": ({"tools": OFFERED_TWICE}, openai.BadRequestError, "tools[2].function.name"),
    "a tool not offered": (
        {"tools": TOOLS, "tool_choice": STRANGER},
        openai.BadRequestError,
        "tool_choice",
    ),
    "not a schema": ({"tools": BAD_SCHEMA}, openai.BadRequestError, "tools[0].function.parameters"),
    "a strict keyword that decoding can't enforce": (
        {"tools": HARD_SCHEMA},
        openai.BadRequestError,
        "tools[0].function.parameters",
    ),
    "not honoured": ({"extra_body": {"best_of": 3}}, openai.BadRequestError, "best_of"),
    "another model": ({"model": "gpt-5"}, openai.NotFoundError, "model"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_refusal_raises_the_right_exception_and_names_the_field(
    sdk: Sdk, case: str, streamed: bool
) -> None:
    fields, kind, param = REFUSED[case]
    ask: Callable[..., Any] = sdk.told if streamed else sdk.asked

    with pytest.raises(kind) as refused:
        ask(**fields)

    assert (refused.value.param or "").startswith(param or "")
    assert refused.value.request_id


def test_a_refused_keyword_is_named_with_its_pointer(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.asked(tools=HARD_SCHEMA)

    said = f"{refused.value.param} {refused.value.message}"
    assert "uniqueItems" in said
    assert "/properties/a" in said


def test_a_prompt_longer_than_the_context_is_refused(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.asked(messages=[{**USER, "content": "weather " * 5000}])

    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("key", ["wrong", "a-key-of-the-test"])
def test_a_wrong_key_is_an_authentication_error(sdk: Sdk, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        sdk.with_key(key).asked(max_tokens=1)

    assert refused.value.code == "invalid_api_key"


def test_any_of_the_keys_opens(sdk: Sdk) -> None:
    assert sdk.with_key("another-key").asked(max_tokens=1).choices
