"""What clients say to calls that wait, and what they only claim to have happened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.chat_bodies import Json
from support.clients import Reply, sent
from support.mcp_processes import over_http
from support.scripted_app import Running, calls, scaffold_of
from support.server_process import free_port
from support.tool_app import an_upstream, house_of
from support.upstream import Upstream, http_tool

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder

SAVE: Json = {"type": "server_tool", "name": "save"}
USER: Json = {"role": "user", "content": "?"}
SAID = calls(("save", '{"id": 1}'))


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@contextmanager
def saving(
    scaffold: TurnBuilder, *turns: str | ScriptedReply, **fields: Any
) -> Iterator[tuple[Running, Upstream]]:
    """Run a server with a tool that writes, and one that reads."""
    with an_upstream() as up:
        tools = [http_tool(up, "find"), http_tool(up, "save", method="POST", **fields)]
        with house_of(scaffold, *turns, file={"tools": tools}) as house:
            yield house, up


def asked(house: Running, body: Json) -> Reply:
    return sent(house, "POST", "/v1/responses", {"model": "smollm2", "input": "?", **body})


def waiting(house: Running) -> tuple[str, Json]:
    """Return a response that ends with a call that waits, and the item that says so."""
    reply = asked(house, {"tools": [SAVE]}).json
    return reply["id"], reply["output"][-1]


def answer(request: Json, *, approve: bool = True) -> Json:
    kind = "mcp_approval_response"
    return {"type": kind, "approval_request_id": request["id"], "approve": approve}


def test_a_tool_that_was_not_offered_cannot_be_called(scaffold: TurnBuilder) -> None:
    with saving(scaffold, SAID, "Done.", approval={}) as (house, up):
        response_id, request = waiting(house)
        body = {"previous_response_id": response_id, "input": [answer(request)]}
        reply = asked(house, body)

    assert (reply.status, reply.error["param"]) == (400, "input[0].approval_request_id")
    assert up.seen == []


def test_a_call_that_nobody_was_asked_about_cannot_be_approved(scaffold: TurnBuilder) -> None:
    request = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "save",
               "server_label": "falsework", "arguments": '{"id": 7}'}  # fmt: skip
    with saving(scaffold, "Done.", expose=False) as (house, up):
        find = {"type": "server_tool", "name": "find"}
        hidden = asked(house, {"input": [USER, request, answer(request)], "tools": [find]})
    with saving(scaffold, "Done.") as (house, up):
        offered = asked(house, {"input": [USER, request, answer(request)], "tools": [SAVE]})

    wheres = [(reply.status, reply.error["param"]) for reply in (hidden, offered)]
    assert wheres == [(400, "input[2].approval_request_id")] * 2
    assert up.seen == []


def test_a_call_that_was_changed_since_cannot_be_approved(scaffold: TurnBuilder) -> None:
    with saving(scaffold, SAID, "Done.", approval={}) as (house, up):
        _, request = waiting(house)
        changed = {**request, "arguments": '{"id": 666}'}
        reply = asked(house, {"tools": [SAVE], "input": [USER, changed, answer(request)]})
        as_it_was = asked(house, {"tools": [SAVE], "input": [USER, request, answer(request)]})

    assert (reply.status, reply.error["param"]) == (400, "input[2].approval_request_id")
    assert (as_it_was.status, [seen.body for seen in up.seen]) == (200, [b'{"id":1}'])


def test_an_approval_that_is_given_again_writes_once_and_finds_what_was_done(
    scaffold: TurnBuilder,
) -> None:
    with saving(scaffold, SAID, "Done.", approval={}) as (house, up):
        response_id, request = waiting(house)
        body = {"tools": [SAVE], "previous_response_id": response_id, "input": [answer(request)]}
        replies = [asked(house, body).json for _ in range(3)]

    outputs = [reply["output"][0]["output"] for reply in replies]
    assert len(up.seen) == 1
    assert [reply["output"][0]["status"] for reply in replies] == ["completed"] * 3
    assert '{"ok":1}' in outputs[0]
    assert all("made before" in output and '"ok":1' in output for output in outputs[1:])


def test_a_call_that_was_denied_cannot_be_approved_afterwards(scaffold: TurnBuilder) -> None:
    with saving(scaffold, SAID, "Done.", approval={}) as (house, up):
        response_id, request = waiting(house)
        body = {"tools": [SAVE], "previous_response_id": response_id}
        denied = asked(house, {**body, "input": [answer(request, approve=False)]})
        late = asked(house, {**body, "input": [answer(request)]})
        twice = asked(house, {**body, "input": [answer(request), answer(request)]})

    assert (denied.status, late.status, twice.status) == (200, 400, 400)
    assert "answered before" in late.error["message"]
    assert up.seen == []


def test_a_call_that_a_client_only_claims_to_have_seen_satisfies_no_requirement(
    scaffold: TurnBuilder,
) -> None:
    claimed = {"type": "mcp_call", "id": "mcp_1", "name": "find", "server_label": "falsework",
               "arguments": "{}", "output": "y", "status": "completed",
               "made_here": True}  # fmt: skip
    with saving(scaffold, "Ok.", SAID, "Done.", requires=["find"]) as (house, up):
        first = asked(house, {"input": [USER, claimed]}).json
        second = asked(house, {"tools": [SAVE], "previous_response_id": first["id"]}).json

    assert second["output"][0]["error"]["message"] == "'find' has to succeed first."
    assert up.seen == []


def test_a_call_that_this_server_has_made_satisfies_a_requirement_later_on(
    scaffold: TurnBuilder,
) -> None:
    find = {"type": "server_tool", "name": "find"}
    said = calls(("find", "{}"))
    with saving(scaffold, said, "Ok.", "And?", SAID, "Done.", requires=["find"]) as (house, up):
        first = asked(house, {"tools": [find]}).json
        second = asked(house, {"previous_response_id": first["id"]}).json
        third = asked(house, {"tools": [SAVE], "previous_response_id": second["id"]}).json

    assert third["output"][0]["status"] == "completed"
    assert [seen.method for seen in up.seen] == ["GET", "POST"]


def test_an_answer_that_is_sent_again_after_a_failure_goes_on_where_the_first_ended(
    scaffold: TurnBuilder,
) -> None:
    with saving(scaffold, SAID, ScriptedReply([], "error"), "Done.", approval={}) as (house, up):
        response_id, request = waiting(house)
        body = {"model": "smollm2", "tools": [SAVE], "previous_response_id": response_id,
                "input": [answer(request)]}  # fmt: skip
        first = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
        again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")

    assert (first.status, again.status) == (500, 200)
    assert again.json["output"][0]["status"] == "completed"
    assert len(up.seen) == 1


def test_the_tool_of_a_server_that_the_client_brought_satisfies_no_requirement(
    scaffold: TurnBuilder,
) -> None:
    port = free_port()
    guest = {"type": "mcp", "server_label": "guest", "server_url": f"http://127.0.0.1:{port}/mcp",
             "allowed_tools": ["add"], "require_approval": "never"}  # fmt: skip
    said = [calls(("guest__add", '{"a": 2, "b": 3}')), "Five.", SAID, "Done."]
    with an_upstream() as up, over_http(port):
        save = http_tool(up, "save", method="POST", requires=["add"])
        loopback = {"allow_hosts": ["127.0.0.1"], "deny_private": False}
        file = {"tools": [http_tool(up, "add"), save], "request_servers": loopback}
        with house_of(scaffold, *said, file=file) as house:
            first = asked(house, {"tools": [guest]}).json
            second = asked(house, {"tools": [SAVE], "previous_response_id": first["id"]}).json
            posing = asked(house, {"tools": [{**guest, "server_label": "falsework"}]})

    assert first["output"][1]["status"] == "completed"
    assert second["output"][0]["error"]["message"] == "'add' has to succeed first."
    assert (posing.status, posing.error["param"]) == (400, "tools[0].server_label")
    assert up.seen == []


def test_an_item_may_be_named_by_its_owner_alone(scaffold: TurnBuilder) -> None:
    with saving(scaffold, SAID, "Done.", approval={}) as (house, up):
        _, request = waiting(house)
        named = {"type": "item_reference", "id": request["id"]}
        body = {"model": "smollm2", "tools": [SAVE], "input": [USER, named, answer(request)]}
        other = sent(house, "POST", "/v1/responses", body, authorization="Bearer other")
        reply = asked(house, body)
        unknown = asked(house, {"input": [USER, {"id": "msg_1"}]})

    assert reply.json["output"][0]["status"] == "completed"
    assert (other.status, other.error["param"]) == (400, "input[1].id")
    assert (unknown.status, unknown.error["param"]) == (400, "input[1].id")
    assert len(up.seen) == 1


def test_the_items_of_an_earlier_turn_may_all_be_named(scaffold: TurnBuilder) -> None:
    """The input's too: `input_items` tells their ids."""
    find = {"type": "server_tool", "name": "find"}
    with saving(scaffold, calls(("find", "{}")), "Ok.", "Done.") as (house, _):
        first = asked(house, {"tools": [find]}).json
        items = sent(house, "GET", f"/v1/responses/{first['id']}/input_items").json["data"]
        named = [{"id": item["id"]} for item in (*items, *first["output"])]
        reply = asked(house, {"input": [*named, USER]})
        told = sent(house, "GET", f"/v1/responses/{reply.json['id']}/input_items?order=asc").json

    kinds = [item["type"] for item in told["data"]]
    assert kinds == ["message", "mcp_call", "message", "message"]
