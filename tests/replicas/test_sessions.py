"""Which replica a turn goes to: the same for all turns of one conversation."""

import json
from typing import Any

import pytest

from falsework.server.replicas.sessions import session_of

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
SYSTEM = {"role": "system", "content": "You plan trips."}
PARIS = {"role": "user", "content": "What is the weather in Paris?"}
CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "call_1", "function": {"name": "get_weather"}}],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}


def session(path: str = CHAT, named: str = "", **fields: Any) -> str:
    return session_of(path, named, json.dumps(fields).encode())


def test_the_turns_of_a_chat_are_one_session() -> None:
    first = session(messages=[SYSTEM, PARIS], tools=[WEATHER])
    second = session(messages=[SYSTEM, PARIS, CALLED, RESULT], tools=[WEATHER])
    third = session(messages=[SYSTEM, PARIS, CALLED, RESULT, PARIS], tools=[WEATHER], seed=1)

    assert first
    assert first == second == third


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [SYSTEM, {"role": "user", "content": "And in Rome?"}], "tools": [WEATHER]},
        {"messages": [{**SYSTEM, "content": "You cook."}, PARIS], "tools": [WEATHER]},
        {"messages": [SYSTEM, PARIS], "tools": []},
    ],
)
def test_another_opening_is_another_session(other: dict[str, Any]) -> None:
    assert session(**other) != session(messages=[SYSTEM, PARIS], tools=[WEATHER])


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_cache_key": "trip-7"},
        {"conversation": "conv_7"},
        {"conversation": {"id": "conv_7"}},
    ],
)
def test_what_the_client_calls_it_goes_before_what_is_said(fields: dict[str, Any]) -> None:
    assert session(RESPONSES, input="one", **fields) == session(RESPONSES, input="two", **fields)


def test_the_header_names_a_session_where_the_body_names_none() -> None:
    assert session(messages=[PARIS], named="s") == session(messages=[SYSTEM, PARIS], named="s")
    assert session(prompt_cache_key="k", named="s") == session(prompt_cache_key="k", named="t")


def test_a_turn_goes_where_the_response_before_it_was_made() -> None:
    following = session(RESPONSES, previous_response_id="resp_2afd3de10vj9WACIUMCdjsWe", input="?")

    assert following == "2afd3de1"


@pytest.mark.parametrize("end", ["", "/cancel", "/input_items"])
def test_a_request_for_a_response_goes_where_it_was_made(end: str) -> None:
    assert session_of(f"{RESPONSES}/resp_2afd3de10vj9WACIUMCdjsWe{end}", "", b"") == "2afd3de1"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b"[" * 100_000, b"\xff", b"{}",
     b'{"messages": 7}', b'{"previous_response_id": "mine"}'],
)  # fmt: skip
def test_what_the_replica_will_refuse_is_passed_on(body: bytes) -> None:
    assert isinstance(session_of(CHAT, "", body), str)
