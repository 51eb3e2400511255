"""Responses over a WebSocket: events over one connection, continued without being stored."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.chat_bodies import Json
from support.clients import client
from support.response_bodies import F, responding
from support.scripted_app import SETTINGS, Running, calls
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder

ASKED: Json = {"type": "response.create", "model": "smollm2", "store": False}


@contextmanager
def connected(house: Running, **options: Any) -> Iterator[ClientConnection]:
    url = f"ws://127.0.0.1:{house.port}/v1/responses"
    with connect(url, open_timeout=10, **options) as connection:
        yield connection


def events_of(connection: ClientConnection, **fields: Any) -> list[Json]:
    """Return the events of a response, or the error in their place."""
    connection.send(json.dumps({**ASKED, "input": "Hello?", **fields}))
    events: list[Json] = []
    while True:
        events.append(json.loads(connection.recv(timeout=10)))
        if events[-1]["type"] in {"response.completed", "response.incomplete", "error"}:
            return events


def test_a_tool_loop_goes_over_one_connection_and_nothing_is_stored(plain: TurnBuilder) -> None:
    with responding(plain, calls(("f", '{"a": 1}')), "It is 2.") as house:
        with connected(house) as one:
            first = events_of(one, tools=[F])
            response = first[-1]["response"]
            (call,) = response["output"]
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "2"}
            second = events_of(one, tools=[F], input=[output], previous_response_id=response["id"])
        with connected(house) as other:
            (lost,) = events_of(other, input="?", previous_response_id=response["id"])

    assert [event["type"] for event in first][:2] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert (call["type"], call["arguments"]) == ("function_call", '{"a": 1}')
    assert second[-1]["response"]["output"][0]["content"][0]["text"] == "It is 2."
    assert (lost["status"], lost["error"]["code"]) == (400, "previous_response_not_found")


def test_the_official_client_speaks_over_it(plain: TurnBuilder) -> None:
    with responding(plain, "Hello!") as house, client(house) as sdk:
        with sdk.responses.connect() as connection:
            connection.response.create(model="smollm2", input="Hello?")
            kinds = []
            for event in connection:
                kinds.append(event.type)
                if event.type == "response.completed":
                    break

    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ("{", None),
        ("[]", "type"),
        ('{"type": "response.steer"}', "type"),
        (json.dumps({**ASKED, "input": "?", "background": True}), "background"),
        (json.dumps({**ASKED, "input": "?", "temperature": 9}), "temperature"),
    ],
)
def test_what_is_wrong_is_an_error_and_the_connection_lives(
    plain: TurnBuilder, sent: str, param: str | None
) -> None:
    with responding(plain, "Hello!") as house, connected(house) as one:
        one.send(sent)
        error = json.loads(one.recv(timeout=10))
        after = events_of(one)

    assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)
    assert after[-1]["type"] == "response.completed"


def test_a_client_that_leaves_frees_the_engine(plain: TurnBuilder) -> None:
    from support.server_process import eventually  # noqa: PLC0415

    with responding(plain, ScriptedReply(["Hello"], "hang")) as house:
        with connected(house) as one:
            one.send(json.dumps({**ASKED, "input": "?"}))
            one.recv(timeout=10)
            assert eventually(lambda: house.engine.open == 1)

        assert eventually(lambda: house.engine.open == 0)


@pytest.mark.parametrize(
    ("key", "headers", "status"),
    [
        ("secret", {}, 401),
        ("secret", {"Authorization": "Bearer wrong"}, 401),
        ("", {"Origin": "https://evil.example"}, 403),
        ("", {"Host": "evil.example"}, 403),
    ],
)
def test_strangers_get_no_connection(
    plain: TurnBuilder, key: str, headers: dict[str, str], status: int
) -> None:
    settings = SETTINGS.model_copy(update={"api_key": (key,) if key else ()})
    with responding(plain, "Hello!", settings=settings) as house:
        key_alone = {name: headers[name] for name in headers if name == "Authorization"}
        url = f"ws://{headers.get('Host', '127.0.0.1')}:{house.port}/v1/responses"
        reached = socket.create_connection(("127.0.0.1", house.port), timeout=10)
        with reached, pytest.raises(InvalidStatus) as refused:
            connect(
                url,
                sock=reached,
                origin=headers.get("Origin"),  # type: ignore[arg-type]
                additional_headers=key_alone,
            )

    assert refused.value.response.status_code == status
