"""How responses end that don't come to their own end, and what those hear who watch them."""

import json
import sqlite3
from pathlib import Path

import pytest
from support.chat_bodies import Json
from support.clients import Reply, client, sent
from support.response_bodies import made, responding
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import hangs, http_tool, says

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings

BACKGROUND: Json = {"model": "smollm2", "input": "?", "background": True}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def kept(tmp_path: Path) -> Settings:
    return SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})


def begun(house: Running, **fields: object) -> str:
    reply = sent(house, "POST", "/v1/responses", {**BACKGROUND, **fields})
    assert reply.status == 200
    return str(reply.json["id"])


def found(house: Running, response_id: str, query: str = "") -> Reply:
    return sent(house, "GET", f"/v1/responses/{response_id}{query}")


def events_of(reply: Reply) -> list[Json]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_breaks_one_response_breaks_no_other(
    scaffold: TurnBuilder, kept: Settings, tmp_path: Path
) -> None:
    """The database refuses to keep a response that is complete."""
    tool = {"type": "server_tool", "name": "look"}
    said = calls(("look", "{}"))
    with an_upstream() as up, sqlite3.connect(tmp_path / "kept.db") as database:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, "Hi.", said, "Seen.", file=file, settings=kept) as house:
            database.execute(
                "CREATE TRIGGER broken BEFORE UPDATE ON falsework_responses "
                """WHEN NEW.body NOT LIKE '%"status": "failed"%' AND NOT NEW.running """
                "BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
            database.commit()
            broken = begun(house)
            assert eventually(lambda: found(house, broken).json["status"] == "completed")
            watched = found(house, broken, "?stream=true")
            database.execute("DROP TRIGGER broken")
            database.commit()
            second = begun(house, tools=[tool])
            assert eventually(lambda: found(house, second).json["status"] == "completed")
            body = found(house, broken).json

    assert body["warnings"][0]["code"] == "storage_unavailable"
    assert events_of(watched)[-1]["type"] == "response.completed"
    assert len(up.seen) == 1


def test_a_response_whose_end_cannot_be_kept_is_told_with_a_warning(
    scaffold: TurnBuilder, kept: Settings, tmp_path: Path
) -> None:
    with house_of(scaffold, "Hi.", file={}, settings=kept) as house:
        with sqlite3.connect(tmp_path / "kept.db") as database:
            database.execute(
                "CREATE TRIGGER broken BEFORE UPDATE ON falsework_responses "
                "BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
        body = {"model": "smollm2", "input": "?"}
        whole = sent(house, "POST", "/v1/responses", body)
        streamed = sent(house, "POST", "/v1/responses", {**body, "stream": True})

    last = events_of(streamed)[-1]
    assert (whole.status, last["type"]) == (200, "response.completed")
    for body in (whole.json, last["response"]):
        assert [warning["code"] for warning in body["warnings"]] == ["storage_unavailable"]


@pytest.mark.parametrize(("method", "end"), [("POST", "/cancel"), ("DELETE", "")])
def test_who_watches_a_response_hears_that_it_was_ended(
    scaffold: TurnBuilder, method: str, end: str
) -> None:
    key = {"authorization": "Bearer k"}
    with responding(scaffold, ScriptedReply(["Hel"], "hang")) as house, client(house) as sdk:
        stream = sdk.responses.create(model="smollm2", input="?", background=True, stream=True)
        first = next(stream)
        assert first.type == "response.created"
        path = f"/v1/responses/{first.response.id}"
        assert eventually(lambda: house.engine.open == 1)
        sent(house, method, path + end, **key)
        heard = [first, *stream]
        again = sent(house, "GET", f"{path}?stream=true", **key)

    last = heard[-1]
    assert last.type == "response.incomplete"
    assert last.response.status == "cancelled"
    assert [event.sequence_number for event in heard] == list(range(len(heard)))
    if method == "DELETE":
        assert again.status == 404
    else:
        assert [event["type"] for event in events_of(again)] == [event.type for event in heard]


def test_behind_the_last_event_there_is_nothing(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "Hello!") as house:
        body = {"model": "smollm2", "input": "?"}
        response_id = sent(house, "POST", "/v1/responses", body).json["id"]
        last = events_of(found(house, response_id, "?stream=true"))[-1]["sequence_number"]
        behind = [found(house, response_id, f"?stream=true&starting_after={at}")
                  for at in (last, last + 1)]  # fmt: skip

    assert [(reply.status, events_of(reply)) for reply in behind] == [(200, [])] * 2


def test_the_stream_of_a_response_that_ended_with_its_server_says_so(
    scaffold: TurnBuilder, kept: Settings
) -> None:
    with house_of(scaffold, ScriptedReply(["Hel"], "hang"), file={}, settings=kept) as first:
        response_id = begun(first)
        assert eventually(lambda: first.engine.open == 1)
        with house_of(scaffold, "x", file={}, settings=kept) as second:
            reply = found(second, response_id, "?stream=true&starting_after=4")

    (event,) = events_of(reply)
    assert (event["type"], event["sequence_number"]) == ("response.failed", 5)


def test_a_failure_in_a_stream_is_an_error_event_of_both_shapes(scaffold: TurnBuilder) -> None:
    body = {"model": "smollm2", "input": "?", "stream": True}
    with responding(scaffold, ScriptedReply(["Hel"], "error")) as house:
        reply = sent(house, "POST", "/v1/responses", body)

    *_, last, _ = reply.text.strip().split("\n\n")
    name, _, data = last.partition("\n")
    event = json.loads(data.removeprefix("data: "))
    assert name == "event: error"
    assert event["sequence_number"] == len(events_of(reply)) - 1
    assert event["code"] == event["error"]["code"] == "engine_error"
    assert event["message"] == event["error"]["message"]
    assert event["error"]["type"] == "server_error"


def test_a_call_that_was_cut_off_has_not_succeeded(scaffold: TurnBuilder) -> None:
    tools = [{"type": "server_tool", "name": name} for name in ("find", "save")]
    said = [calls(("find", "{}")), calls(("save", "{}")), "Done."]
    with an_upstream(hangs, says({"ok": 1})) as up:
        slow = {"deadline": "40s", "attempt_timeout": "40s"}
        save = http_tool(up, "save", "/save", method="POST", requires=["find"])
        file = {"tools": [http_tool(up, "find", **slow), save]}
        with house_of(scaffold, *said, file=file) as house:
            response_id = begun(house, tools=tools)
            assert eventually(lambda: up.seen)
            ended = sent(house, "POST", f"/v1/responses/{response_id}/cancel").json
            body = {"model": "smollm2", "input": "Go on.", "tools": tools,
                    "previous_response_id": response_id}  # fmt: skip
            later = sent(house, "POST", "/v1/responses", body).json

    assert (ended["output"][0]["status"], ended["output"][0]["error"]["effect"]) == (
        "incomplete", "unknown")  # fmt: skip
    assert later["output"][0]["error"]["message"] == "'find' has to succeed first."
    assert [seen.path for seen in up.seen] == ["/look"]


def test_a_write_that_outlives_its_response_stands_in_it(scaffold: TurnBuilder) -> None:
    tool = {"type": "server_tool", "name": "save"}
    with an_upstream(says({"done": 1}, after=0.5)) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, calls(("save", '{"id": 1}')), file=file) as house:
            response_id = begun(house, tools=[tool])
            assert eventually(lambda: up.seen)
            ended = sent(house, "POST", f"/v1/responses/{response_id}/cancel").json

            def output() -> Json:
                item: Json = found(house, response_id).json["output"][0]
                return item

            assert eventually(lambda: output()["status"] == "completed")
            written = found(house, response_id).json

    assert (ended["status"], ended["output"][0]["status"]) == ("cancelled", "incomplete")
    assert (written["status"], written["output"][0]["output"]) == ("cancelled", '{"done":1}')


def test_a_response_that_is_still_being_made_cannot_be_continued(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "hang")) as house:
        response_id = begun(house)
        body = {"model": "smollm2", "input": "?", "previous_response_id": response_id}
        reply = sent(house, "POST", "/v1/responses", body)

    assert (reply.status, reply.error["param"]) == (400, "previous_response_id")


def test_what_was_cut_is_incomplete_and_not_completed_at_any_time(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "length")) as house:
        reply = made(house, max_output_tokens=1)

    assert (reply.status, reply.output[0].status) == ("incomplete", "incomplete")
    assert reply.completed_at is None


def test_the_items_of_the_input_have_their_text_in_parts(scaffold: TurnBuilder) -> None:
    items = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"},
             {"role": "user", "content": "?"}]  # fmt: skip
    with responding(scaffold, "Hi.") as house, client(house) as sdk:
        reply = made(house, input=items)
        listed = list(sdk.responses.input_items.list(reply.id, order="asc"))

    assert [item.content[0].text for item in listed] == ["Hello?", "Hello!", "?"]  # type: ignore[union-attr]
