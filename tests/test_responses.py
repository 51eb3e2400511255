"""POST /v1/responses and its companions: the official SDK, a scripted model, real tools."""

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from asking import Json
from faulty import http_tool, says
from houses import SETTINGS, Running, calls, eventually, scaffold_of
from toolhouses import an_upstream, house_of
from visiting import client, sent

from falsework.server.engines.scripted import Line
from falsework.server.turns import Scaffold

SCRIPT = str(Path(__file__).parent / "mcp_server.py")
F: Json = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "strict": False,
}
SUMS: Json = {"type": "mcp", "server_label": "sums", "require_approval": "never"}
FILE: Json = {
    "servers": {
        "sums": {"command": [sys.executable, SCRIPT, "stdio"], "tools": ["add"], "effect": "pure"}
    }
}
ADD = calls(("sums__add", '{"a": 2, "b": 3}'))


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> Scaffold:
    return scaffold_of(smollm2)


@contextmanager
def responding(scaffold: Scaffold, *turns: str | Line, **more: Any) -> Iterator[Running]:
    with house_of(scaffold, *turns, file=more.pop("file", {}), **more) as house:
        yield house


def made(house: Running, **fields: Any) -> Any:
    with client(house) as sdk:
        return sdk.responses.create(**{"model": "smollm2", "input": "Hello?", **fields})


def events_of(house: Running, **fields: Any) -> list[Any]:
    with client(house) as sdk:
        stream = sdk.responses.create(
            **{"model": "smollm2", "input": "Hello?", **fields}, stream=True
        )
        return list(stream)


def test_text_is_answered(scaffold: Scaffold) -> None:
    with responding(scaffold, "Hello!") as house:
        reply = made(house, instructions="Be brief.", metadata={"a": "b"})

    assert (reply.output_text, reply.status, reply.error) == ("Hello!", "completed", None)
    assert (reply.instructions, reply.metadata) == ("Be brief.", {"a": "b"})
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_every_field_that_clients_look_for_is_there(scaffold: Scaffold) -> None:
    with responding(scaffold, "Hello!") as house:
        reply = sent(house, "POST", "/v1/responses", {"model": "smollm2", "input": "?", "tools": [F]})

    wanted = """id object created_at completed_at status error incomplete_details instructions model
        output usage parallel_tool_calls previous_response_id reasoning store background
        service_tier temperature top_p presence_penalty frequency_penalty top_logprobs text
        tool_choice tools truncation max_output_tokens max_tool_calls user metadata
        safety_identifier prompt_cache_key""".split()
    assert set(wanted) <= set(reply.json)
    assert set(reply.json["tools"][0]) >= {"description", "parameters", "strict"}


def test_a_text_streams_in_openais_order(scaffold: Scaffold) -> None:
    with responding(scaffold, Line(["Hel", "lo"])) as house:
        events = events_of(house)

    kinds = [kind for kind, _ in itertools.groupby(event.type for event in events)]
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "Hello"
    assert events[0].response.output == []


def test_a_clients_function_is_called_and_its_output_taken(scaffold: Scaffold) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}')), "It is 2.") as house:
        first = made(house, tools=[F])
        (call,) = first.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
        second = made(house, tools=[F], previous_response_id=first.id, input=[output])

    assert (call.type, call.name, call.arguments, call.status) == (
        "function_call", "f", '{"a": 1}', "completed")  # fmt: skip
    assert second.output_text == "It is 2."


def test_a_function_call_streams_as_the_sdk_expects(scaffold: Scaffold) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}'))) as house, client(house) as sdk:
        with sdk.responses.stream(model="smollm2", input="?", tools=[F]) as stream:  # type: ignore[list-item]
            kinds = [event.type for event in stream]
            final = stream.get_final_response()

    assert "response.function_call_arguments.done" in kinds
    assert final.output[0].type == "function_call"


def test_a_conversation_may_be_replayed_by_the_client(scaffold: Scaffold) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}')), "Done.") as house:
        first = made(house, tools=[F], store=False)
        items = [
            {"role": "user", "content": "Hello?"},
            *[item.model_dump() for item in first.output],
            {"type": "function_call_output", "call_id": first.output[0].call_id,
             "output": [{"type": "input_text", "text": "2"}]},
        ]  # fmt: skip
        second = made(house, tools=[F], input=items)

    assert second.output_text == "Done."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "input[0].call_id"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "holo_call"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": []}, "input"),
        ({"tools": [{"type": "function", "name": "f g"}]}, "tools[0].name"),
        ({"tools": [{**F, "parameters": {"type": "objekt"}}]}, "tools[0].parameters"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(scaffold: Scaffold, fields: Json, param: str) -> None:
    with responding(scaffold, "x") as house, pytest.raises(openai.BadRequestError) as caught:
        made(house, **fields)

    assert caught.value.param == param


def test_text_of_a_schema_is_asked_for_flat(scaffold: Scaffold) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    with responding(scaffold, '{"a": 1}') as house:
        reply = made(house, text=form)

    assert reply.output_text == '{"a": 1}'


def test_a_cut_response_says_why_it_is_incomplete(scaffold: Scaffold) -> None:
    with responding(scaffold, Line(["Hel"], "length")) as house:
        reply = made(house, max_output_tokens=1)

    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_an_engine_that_fails_is_told_in_both_shapes(scaffold: Scaffold) -> None:
    with responding(scaffold, Line(["Hel"], "error")) as house:
        with pytest.raises(openai.APIError) as caught:
            events_of(house)

    assert "engine" in str(caught.value)


def test_a_response_is_kept_until_it_is_deleted(scaffold: Scaffold) -> None:
    with responding(scaffold, "Hello!") as house, client(house) as sdk:
        reply = made(house)
        again = sdk.responses.retrieve(reply.id)
        items = sdk.responses.input_items.list(reply.id)
        sdk.responses.delete(reply.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(reply.id)

    assert again.output_text == "Hello!"
    assert [item.role for item in items] == ["user"]  # type: ignore[union-attr]


def test_nobody_reads_the_response_of_another_key(scaffold: Scaffold) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("one", "two")})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        with client(house, "one") as sdk:
            reply = sdk.responses.create(model="smollm2", input="?")
        with client(house, "two") as sdk, pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(reply.id)


def test_a_response_survives_a_restart(scaffold: Scaffold, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        reply = made(house)
    with house_of(scaffold, "x", file={}, settings=settings) as house, client(house) as sdk:
        again = sdk.responses.retrieve(reply.id)

    assert again.output_text == "Hello!"


def test_an_mcp_tool_is_listed_run_and_told_of_in_openais_order(scaffold: Scaffold) -> None:
    with responding(scaffold, ADD, "Five.", file=FILE) as house:
        events = events_of(house, tools=[SUMS])

    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:12] == [
        "created", "in_progress", "output_item.added", "mcp_list_tools.in_progress",
        "mcp_list_tools.completed", "output_item.done", "output_item.added",
        "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done",
        "mcp_call.completed", "output_item.done",
    ]  # fmt: skip
    listing, call, message = events[-1].response.output
    assert (listing.type, [tool.name for tool in listing.tools]) == ("mcp_list_tools", ["add"])
    assert (call.name, call.server_label, call.status) == ("add", "sums", "completed")
    assert (call.output, call.error) == ('{"result":5}', None)
    assert message.content[0].text == "Five."


def test_an_mcp_call_that_fails_is_told_and_the_model_goes_on(scaffold: Scaffold) -> None:
    file = {"servers": {"sums": {**FILE["servers"]["sums"], "tools": ["refuse"]}}}
    said = calls(("sums__refuse", '{"why": "closed"}'))
    body = {"model": "smollm2", "input": "?", "tools": [SUMS]}
    with responding(scaffold, said, "It is closed.", file=file) as house:
        reply = sent(house, "POST", "/v1/responses", body).json

    _, call, message = reply["output"]
    assert (call["status"], call["output"]) == ("failed", None)
    assert call["error"]["type"] == "mcp_tool_execution_error"
    assert message["content"][0]["text"] == "It is closed."


@pytest.mark.parametrize("approve", [True, False])
def test_a_call_waits_for_approval_and_is_run_or_not(scaffold: Scaffold, *, approve: bool) -> None:
    tools = [{**SUMS, "require_approval": "always"}]
    with responding(scaffold, ADD, "So be it.", file=FILE) as house:
        first = made(house, tools=tools)
        request = first.output[-1]
        answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve}
        second = made(house, tools=tools, previous_response_id=first.id, input=[answer])

    assert (request.type, request.name, first.status) == ("mcp_approval_request", "add", "completed")
    call = next(item for item in second.output if item.type == "mcp_call")
    assert call.approval_request_id == request.id
    assert (call.status == "completed") == approve
    assert second.output_text == "So be it."


def test_max_tool_calls_is_kept(scaffold: Scaffold) -> None:
    again = calls(("sums__add", '{"a": 1, "b": 1}'))
    with responding(scaffold, ADD, again, "Enough.", file=FILE) as house:
        reply = made(house, tools=[SUMS], max_tool_calls=1)

    ran = [item.status for item in reply.output if item.type == "mcp_call"]
    assert ran == ["completed", "failed"]
    assert reply.output_text == "Enough."


def test_a_server_that_does_not_answer_is_424(scaffold: Scaffold) -> None:
    file = {"servers": {"sums": {"url": "http://127.0.0.1:9/mcp", "tools": ["add"]}}}
    import falsework.runtime.toolbox as boxes  # noqa: PLC0415

    patience, boxes.DESCRIBE_SECONDS = boxes.DESCRIBE_SECONDS, 1
    try:
        with responding(scaffold, "x", file=file) as house:
            with pytest.raises(openai.APIStatusError) as caught:
                made(house, tools=[SUMS])
    finally:
        boxes.DESCRIBE_SECONDS = patience

    assert (caught.value.status_code, caught.value.type) == (424, "external_connector_error")


def test_a_response_in_the_background_is_there_when_it_is_done(scaffold: Scaffold) -> None:
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


def test_a_response_in_the_background_is_cancelled(scaffold: Scaffold) -> None:
    with responding(scaffold, Line(["Hel"], "hang")) as house, client(house) as sdk:
        begun = made(house, background=True)
        assert eventually(lambda: house.engine.open == 1)
        ended = sdk.responses.cancel(begun.id)
        kept = sdk.responses.retrieve(begun.id)

        assert (ended.status, kept.status, kept.output_text) == ("cancelled", "cancelled", "Hel")
        assert eventually(lambda: house.engine.open == 0)


def test_what_was_done_when_the_process_was_killed_is_there_after_a_restart(
    scaffold: Scaffold, tmp_path: Path
) -> None:
    """The first server is left in the middle of a response; the second one finds its database."""
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with an_upstream(always=says("written")) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        said = calls(("save", '{"id": 1}'))
        key = {"Idempotency-Key": "k-1"}
        with house_of(scaffold, said, Line([], "hang"), file=file, settings=settings) as first:
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


def test_a_request_with_a_key_is_done_once_and_its_reply_given_again(scaffold: Scaffold) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "input": "?", "tools": [tool]}
        with house_of(scaffold, calls(("save", "{}")), "Saved.", file=file) as house:
            first = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
            again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")
            other = sent(house, "POST", "/v1/responses", {**body, "input": "!"}, idempotency_key="k")

    assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
    assert (other.status, other.error["code"]) == (400, "idempotency_key_reused")
    assert len(up.seen) == 1


def test_an_sdk_that_asks_again_after_our_error_does_not_write_twice(scaffold: Scaffold) -> None:
    """Whatever the SDK makes of the status: the second try finds what the first one did."""
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "?"}], "tools": [tool]}
        said = calls(("save", '{"id": 1}'))
        turns = [said, Line([], "error"), said, "Saved."]
        with house_of(scaffold, *turns, file=file) as house:
            failed = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="0")
            again = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="1")
            fresh = sent(house, "POST", "/v1/chat/completions", body, x_stainless_retry_count="0")

    assert (failed.status, again.status, fresh.status) == (500, 200, 200)
    assert again.json["choices"][0]["message"]["content"] == "Saved."
    assert len(up.seen) == 1, "the fresh request only said 'Saved.'"


def test_when_a_client_leaves_during_a_write_the_same_key_finds_it_done(scaffold: Scaffold) -> None:
    with an_upstream(says("written", after=0.6)) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        tool = {"type": "server_tool", "name": "save"}
        body = {"model": "smollm2", "input": "?", "tools": [tool]}
        said = calls(("save", '{"id": 1}'))
        with house_of(scaffold, said, said, "Saved.", file=file) as house:
            with pytest.raises(TimeoutError):
                sent(house, "POST", "/v1/responses", body, timeout=0.3, idempotency_key="k")
            time.sleep(0.7)
            again = sent(house, "POST", "/v1/responses", body, idempotency_key="k")

    assert again.json["output"][-1]["content"][0]["text"] == "Saved."
    assert len(up.seen) == 1
