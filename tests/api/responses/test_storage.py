"""Responses that are kept, taken up again, and never done twice."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import openai
import pytest
from support.chat_bodies import Json
from support.clients import client, sent
from support.response_bodies import ADD, FILE, SUMS, made, responding
from support.scripted_app import SETTINGS, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def test_a_response_is_kept_until_it_is_deleted(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "Hello!") as house, client(house) as sdk:
        reply = made(house)
        again = sdk.responses.retrieve(reply.id)
        items = sdk.responses.input_items.list(reply.id)
        sdk.responses.delete(reply.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(reply.id)

    assert again.output_text == "Hello!"
    assert [item.role for item in items] == ["user"]  # type: ignore[union-attr]


def test_nobody_reads_the_response_of_another_key(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("one", "two")})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        with client(house, "one") as sdk:
            reply = sdk.responses.create(model="smollm2", input="?")
        with client(house, "two") as sdk, pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(reply.id)


def test_a_response_survives_a_restart(scaffold: TurnBuilder, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        reply = made(house)
    with house_of(scaffold, "x", file={}, settings=settings) as house, client(house) as sdk:
        again = sdk.responses.retrieve(reply.id)

    assert again.output_text == "Hello!"


def test_a_response_in_the_background_is_there_when_it_is_done(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ADD, "Five.", file=FILE) as house, client(house) as sdk:
        begun = made(house, tools=[SUMS], background=True)

        def done() -> bool:
            return sdk.responses.retrieve(begun.id).status == "completed"

        assert begun.status == "queued"
        assert eventually(done)
        assert sdk.responses.retrieve(begun.id).output_text == "Five."
        with sdk.responses.retrieve(begun.id, stream=True, starting_after=3) as again:
            numbers = [event.sequence_number for event in again]
    assert numbers == list(range(4, 4 + len(numbers)))


def test_a_response_in_the_background_is_cancelled(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "hang")) as house, client(house) as sdk:
        begun = made(house, background=True)
        assert eventually(lambda: house.engine.open == 1)
        ended = sdk.responses.cancel(begun.id)
        kept = sdk.responses.retrieve(begun.id)

        assert (ended.status, kept.status, kept.output_text) == ("cancelled", "cancelled", "Hel")
        assert eventually(lambda: house.engine.open == 0)


def test_what_was_done_when_the_process_was_killed_is_there_after_a_restart(
    scaffold: TurnBuilder, tmp_path: Path
) -> None:
    """The first server is left in the middle of a response; the second one finds its database."""
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with an_upstream(always=says("written")) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        said = calls(("save", '{"id": 1}'))
        key = {"Idempotency-Key": "k-1"}
        with house_of(
            scaffold, said, ScriptedReply([], "hang"), file=file, settings=settings
        ) as first:
            begun = sent(first, "POST", "/v1/responses",
                         {"model": "smollm2", "input": "?", "tools": [tool], "background": True},
                         **key).json  # fmt: skip
            assert eventually(lambda: len(first.engine.asked) == 2)
            with house_of(scaffold, said, "Saved.", file=file, settings=settings) as second:
                found = sent(second, "GET", f"/v1/responses/{begun['id']}").json
        calls_made = [item for item in found["output"] if item["type"] == "mcp_call"]

    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert [call["output"] for call in calls_made] == ["written"]
    assert len(up.seen) == 1


def test_a_request_with_a_key_is_done_once_and_its_reply_given_again(scaffold: TurnBuilder) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "input": "?", "tools": [tool]}
        with house_of(scaffold, calls(("save", "{}")), "Saved.", file=file) as house:
            first = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
            again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
            other = sent(
                house, "POST", "/v1/responses", {**body, "input": "!"}, idempotency_key="k"
            )

    assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
    assert (other.status, other.error["code"]) == (400, "idempotency_key_reused")
    assert len(up.seen) == 1


def test_an_sdk_that_asks_again_after_our_error_does_not_write_twice(scaffold: TurnBuilder) -> None:
    """Whatever the SDK makes of the status: the second try finds what the first one did."""
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "?"}], "tools": [tool]}
        said = calls(("save", '{"id": 1}'))
        turns = [said, ScriptedReply([], "error"), said, "Saved."]
        with house_of(scaffold, *turns, file=file) as house:
            failed = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="0")
            again = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="1")
            fresh = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="0")

    assert (failed.status, again.status, fresh.status) == (500, 200, 200)
    assert again.json["choices"][0]["message"]["content"] == "Saved."
    assert len(up.seen) == 1, "the fresh request only said 'Saved.'"


def test_when_a_client_leaves_during_a_write_the_same_key_finds_it_done(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream(says("written", after=0.6)) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "input": "?", "tools": [tool]}
        said = calls(("save", '{"id": 1}'))
        with house_of(scaffold, said, said, "Saved.", file=file) as house:
            with pytest.raises(TimeoutError):
                sent(house, "POST", "/v1/responses", body, timeout=0.3, idempotency_key="k")
            again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")

    assert again.json["output"][-1]["content"][0]["text"] == "Saved."
    assert len(up.seen) == 1


def test_a_response_that_is_deleted_while_it_is_made_stays_deleted(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "hang")) as house, client(house) as sdk:
        begun = made(house, background=True)
        assert eventually(lambda: house.engine.open == 1)
        sdk.responses.delete(begun.id)
        assert eventually(lambda: house.engine.open == 0)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(begun.id)


@pytest.mark.slow
def test_a_crowd_of_responses_is_kept(scaffold: TurnBuilder, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        body = {"model": "smollm2", "input": "?"}

        def ask(_: int) -> Json:
            return sent(
                house, "POST", "/v1/responses", body, timeout=60, x_stainless_retry_count="0"
            ).json

        with ThreadPoolExecutor(64) as clients:
            replies = list(clients.map(ask, range(200)))
        kept = [sent(house, "GET", f"/v1/responses/{reply['id']}").status for reply in replies]

    assert {reply["status"] for reply in replies} == {"completed"}
    assert set(kept) == {200}


def test_responses_in_the_background_hold_seats_too(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"max_concurrent_requests": 1})
    body = {"model": "smollm2", "input": "?", "background": True}
    lines = [ScriptedReply(["Hel"], "hang"), "Hello!"]
    with house_of(scaffold, *lines, file={}, settings=settings) as house:
        first = sent(house, "POST", "/v1/responses", body)
        full = [sent(house, "POST", "/v1/responses", body).status for _ in range(3)]
        sent(house, "POST", f"/v1/responses/{first.json['id']}/cancel")
        assert eventually(lambda: house.app.state.admission.taken == 0)
        again = sent(house, "POST", "/v1/responses", body)
        assert eventually(lambda: house.app.state.admission.taken == 0)

    assert (first.status, full, again.status) == (200, [429, 429, 429], 200)


def test_a_response_in_the_background_is_finished_before_the_server_ends(
    scaffold: TurnBuilder, tmp_path: Path
) -> None:
    kept = f"sqlite:///{tmp_path}/kept.db"
    settings = SETTINGS.model_copy(update={"database": kept, "drain_seconds": 5})
    tools = [{"type": "server_tool", "name": "look"}]
    with an_upstream(always=says({}, after=0.5)) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(
            scaffold, calls(("look", "{}")), "Done.", file=file, settings=settings
        ) as house:
            begun = made(house, tools=tools, background=True)
            assert eventually(lambda: up.seen)
        with responding(scaffold, "x", settings=settings) as house, client(house) as sdk:
            found = sdk.responses.retrieve(begun.id)

    assert (found.status, found.output_text) == ("completed", "Done.")


def test_of_what_is_not_to_be_stored_a_retry_finds_the_reply_but_not_for_long(
    scaffold: TurnBuilder, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    body = {"model": "smollm2", "input": "?", "store": False}
    with responding(scaffold, "TOPSECRET", settings=settings) as house:
        first = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
        again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
        with closing(sqlite3.connect(tmp_path / "kept.db")) as database:
            kept = database.execute("select count(*) from falsework_responses").fetchone()
            (expires,) = database.execute("select expires from falsework_requests").fetchone()

    assert again.json == first.json
    assert kept == (0,)
    assert expires < time.time() + 901


@pytest.mark.parametrize("seconds", ["", "0.2"])
def test_without_tools_a_response_in_the_background_has_all_the_time_that_it_needs(
    scaffold: TurnBuilder, seconds: str
) -> None:
    file = {"request": {"deadline": "200ms"}}
    body = {"model": "smollm2", "input": "?", "background": True}
    with responding(scaffold, ScriptedReply(["Hel"], "hang"), file=file) as house:
        begun = sent(house, "POST", "/v1/responses", body, x_stainless_read_timeout=seconds).json
        time.sleep(0.4)
        found = sent(house, "GET", f"/v1/responses/{begun['id']}").json

    assert found["status"] == "in_progress"


def test_a_response_that_the_deadline_of_its_tools_cuts_says_so(scaffold: TurnBuilder) -> None:
    tools = [{"type": "server_tool", "name": "look"}]
    with an_upstream() as up:
        file = {"tools": [http_tool(up)], "request": {"deadline": "200ms"}}
        with responding(scaffold, ScriptedReply(["Hel"], "hang"), file=file) as house:
            reply = made(house, tools=tools)

    assert (reply.status, reply.output_text) == ("incomplete", "Hel")
    assert reply.incomplete_details.reason == "deadline"
