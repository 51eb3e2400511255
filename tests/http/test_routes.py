"""The running server: its routes, its keys, its errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from support.chat_bodies import USER
from support.clients import CHAT, HELLO, client, sent
from support.scripted_app import SETTINGS, Running, running, scaffold_of

from falsework.server import app
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def house(scaffold: TurnBuilder) -> Iterator[Running]:
    with running(ScriptedEngine(ScriptedReply(["Hel", "lo"])), scaffold) as house:
        yield house


def test_the_official_client_is_answered(house: Running) -> None:
    with client(house) as sdk:
        reply = sdk.chat.completions.create(model="smollm2", messages=[USER])  # type: ignore[list-item]

    assert reply.choices[0].message.content == "Hello"
    assert reply._request_id is not None


def test_the_official_client_is_streamed_to(house: Running) -> None:
    with client(house) as sdk:
        stream = sdk.chat.completions.create(model="smollm2", messages=[USER], stream=True)  # type: ignore[list-item]
        said = [chunk.choices[0].delta.content or "" for chunk in stream]

    assert said == ["", "Hel", "lo", ""]


def test_a_stream_is_events_and_ends_with_done(house: Running) -> None:
    reply = sent(house, "POST", CHAT, {**HELLO, "stream": True})

    events = reply.text.split("\n\n")

    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-request-id"]
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, (None, None)),
        ({}, 400, ("model", "missing_required_parameter")),
        ({**HELLO, "model": "other"}, 404, ("model", "model_not_found")),
        ({**HELLO, "temperature": 9}, 400, ("temperature", "invalid_value")),
        (
            {**HELLO, "messages": [{"role": "user", "content": "word " * 5000}]},
            400,
            ("messages", "context_length_exceeded"),
        ),
        (
            {
                **HELLO,
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"type": "objekt"}},
                    }
                ],
            },
            400,
            ("tools[0].function.parameters", "invalid_function_parameters"),
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_openais_body(
    house: Running, body: Any, status: int, named: tuple[str | None, str | None], stream: bool
) -> None:
    asked = {**body, "stream": stream} if isinstance(body, dict) else body

    reply = sent(house, "POST", CHAT, asked)

    assert reply.status == status
    assert (reply.error["param"], reply.error["code"]) == named
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"]


def test_a_wrong_path_or_method_has_openais_body_too(house: Running) -> None:
    nowhere = sent(house, "POST", "/v1/completions", HELLO)
    wrong = sent(house, "GET", CHAT)

    assert (nowhere.status, nowhere.error["type"]) == (404, "invalid_request_error")
    assert (wrong.status, wrong.error["type"]) == (405, "invalid_request_error")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer three"}, 401),
        ({"authorization": "Bearer schlüssel"}, 401),
        ({"authorization": "Basic two"}, 401),
        ({"authorization": "two"}, 401),
        ({"authorization": "Bearer two"}, 200),
        ({"authorization": "bearer one"}, 200),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models")])
def test_only_a_right_key_opens(
    scaffold: TurnBuilder, headers: dict[str, str], status: int, method: str, path: str
) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("one", "two")})
    with running(ScriptedEngine(ScriptedReply(["a"])), scaffold, settings) as house:
        reply = sent(house, method, path, HELLO, **headers)
        alive = sent(house, "GET", "/health")

    assert reply.status == status
    assert status == 200 or reply.error["code"] == "invalid_api_key"
    assert alive.status == 200


def test_a_good_request_id_is_returned_and_a_bad_one_replaced(house: Running) -> None:
    good = sent(house, "GET", "/health", x_request_id="my-request.1")
    bad = sent(house, "GET", "/health", x_request_id="no spaces, please")

    assert good.headers["x-request-id"] == "my-request.1"
    assert bad.headers["x-request-id"].startswith("req_")


NONSENSE = ScriptedEngine(ScriptedReply(["Hm. ", "<tool_call>\nnonsense"]))


def test_what_nobody_expected_is_a_500_that_is_not_retried(
    scaffold: TurnBuilder,
) -> None:
    asked = {**HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]}
    named = [structlog.contextvars.merge_contextvars]
    with capture_logs(named) as logged, running(NONSENSE, scaffold) as house:
        reply = sent(house, "POST", CHAT, asked)

    assert (reply.status, reply.error["type"]) == (500, "server_error")
    assert reply.headers["x-should-retry"] == "false"
    assert "nonsense" not in reply.text
    (failure,) = [line for line in logged if line["event"] == "request failed"]
    assert failure["request_id"] == reply.headers["x-request-id"]


def test_the_small_routes_say_what_they_are_for(house: Running) -> None:
    listed = sent(house, "GET", "/v1/models").json
    one = sent(house, "GET", "/v1/models/smollm2").json
    other = sent(house, "GET", "/v1/models/org/name")

    assert (listed["object"], listed["data"]) == ("list", [one])
    assert (one["id"], one["object"], one["owned_by"]) == ("smollm2", "model", "falsework")
    assert (other.status, other.error["code"]) == (404, "model_not_found")
    assert sent(house, "GET", "/ready").json == {"status": "ready"}
    assert "version" in sent(house, "GET", "/version").json


def test_what_nobody_expected_in_a_stream_is_an_event(scaffold: TurnBuilder) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with running(NONSENSE, scaffold) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "tools": tools, "stream": True})

    *_, said, failure, done, _ = reply.text.split("\n\n")
    assert "Hm." in said
    assert json.loads(failure.removeprefix("data: "))["error"]["type"] == "server_error"
    assert done == "data: [DONE]"


def test_an_engine_that_does_not_answer_is_not_ready(
    house: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "READY_SECONDS", 0.05)
    house.engine.answers = False

    reply = sent(house, "GET", "/ready")

    assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")


def test_a_server_on_its_way_out_takes_nobody_in(house: Running) -> None:
    house.app.state.admission.stop_accepting()

    asked = sent(house, "POST", CHAT, HELLO)
    ready = sent(house, "GET", "/ready")

    assert (asked.status, asked.error["code"]) == (503, "shutting_down")
    assert ready.status == 503
