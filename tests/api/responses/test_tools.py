"""Tools that the server runs, on /v1/responses: listed, approved, told of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from support.chat_bodies import Json
from support.clients import sent
from support.mcp_processes import over_http
from support.response_bodies import ADD, FILE, SUMS, F, events_of, made, responding
from support.scripted_app import calls, scaffold_of
from support.server_process import free_port

from falsework.prompts.messages import Message
from falsework.prompts.renderer import Prompt, PromptRenderer
from falsework.server.generation.turn import TurnBuilder


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def test_an_mcp_tool_is_listed_run_and_told_of_in_openais_order(scaffold: TurnBuilder) -> None:
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


def test_a_response_lays_out_the_prompt_once_a_turn(
    scaffold: TurnBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    render = PromptRenderer.render

    def counted(
        self: PromptRenderer, messages: Sequence[Message], *args: Any, **how: Any
    ) -> Prompt:
        rendered.append(len(messages))
        return render(self, messages, *args, **how)

    monkeypatch.setattr(PromptRenderer, "render", counted)
    with responding(scaffold, ADD, ADD, "Five.", file=FILE) as house:
        made(house, tools=[SUMS])

    assert rendered == [1, 3, 5]


def test_an_mcp_call_that_fails_is_told_and_the_model_goes_on(scaffold: TurnBuilder) -> None:
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
def test_a_call_waits_for_approval_and_is_run_or_not(
    scaffold: TurnBuilder, *, approve: bool
) -> None:
    tools = [{**SUMS, "require_approval": "always"}]
    with responding(scaffold, ADD, "So be it.", file=FILE) as house:
        first = made(house, tools=tools)
        request = first.output[-1]
        answer = {
            "type": "mcp_approval_response",
            "approval_request_id": request.id,
            "approve": approve,
        }
        second = made(house, tools=tools, previous_response_id=first.id, input=[answer])

    assert (request.type, request.name, first.status) == (
        "mcp_approval_request",
        "add",
        "completed",
    )
    call = next(item for item in second.output if item.type == "mcp_call")
    assert call.approval_request_id == request.id
    assert (call.status == "completed") == approve
    assert second.output_text == "So be it."


def test_beside_a_call_that_waits_the_others_are_run(scaffold: TurnBuilder) -> None:
    file = {"servers": {"sums": {**FILE["servers"]["sums"], "tools": ["add", "scored"]}}}
    tools = [{**SUMS, "require_approval": {"always": {"tool_names": ["scored"]}}}]
    said = calls(("sums__scored", '{"account": 1}'), ("sums__add", '{"a": 2, "b": 3}'))
    with responding(scaffold, said, "Done.", file=file) as house:
        first = made(house, tools=tools)
        request = first.output[-1]
        answer = {
            "type": "mcp_approval_response",
            "approval_request_id": request.id,
            "approve": True,
        }
        second = made(house, tools=tools, previous_response_id=first.id, input=[answer])

    assert [item.type for item in first.output] == [
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
    ]
    assert (first.output[1].name, first.output[1].status) == ("add", "completed")
    assert [item.name for item in second.output if item.type == "mcp_call"] == ["scored"]


def test_max_tool_calls_is_kept(scaffold: TurnBuilder) -> None:
    again = calls(*[("sums__add", f'{{"a": {n}, "b": 1}}') for n in range(2)])
    with responding(scaffold, again, "Enough.", file=FILE) as house:
        reply = made(house, tools=[SUMS], max_tool_calls=1)

    ran = [item.status for item in reply.output if item.type == "mcp_call"]
    assert ran == ["completed", "failed"]
    assert reply.output_text == "Enough."


def test_a_server_that_does_not_answer_is_424(scaffold: TurnBuilder) -> None:
    file = {"servers": {"sums": {"url": "http://127.0.0.1:9/mcp", "tools": ["add"]}}}
    import falsework.server.tools.registry as boxes  # noqa: PLC0415

    patience, boxes.DESCRIBE_SECONDS = boxes.DESCRIBE_SECONDS, 1
    try:
        with responding(scaffold, "x", file=file) as house:
            with pytest.raises(openai.APIStatusError) as caught:
                made(house, tools=[SUMS])
    finally:
        boxes.DESCRIBE_SECONDS = patience

    assert (caught.value.status_code, caught.value.type) == (424, "external_connector_error")


def test_a_request_brings_its_own_mcp_server_where_its_host_is_allowed(
    scaffold: TurnBuilder,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    guest = {"type": "mcp", "server_label": "guest", "server_url": url, "allowed_tools": ["add"]}
    file = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}
    said = calls(("guest__add", '{"a": 2, "b": 3}'))
    with over_http(port), responding(scaffold, said, said, "Five.", file=file) as house:
        waiting = made(house, tools=[guest])
        reply = made(
            house, tools=[{**guest, "require_approval": "never", "authorization": "hunter2"}]
        )
        elsewhere = sent(
            house, "POST", "/v1/responses",
            {"model": "smollm2", "input": "?",
             "tools": [{**guest, "server_url": "http://10.0.0.1/mcp"}]},
        )  # fmt: skip

    assert waiting.output[-1].type == "mcp_approval_request"
    assert [item.type for item in reply.output] == ["mcp_list_tools", "mcp_call", "message"]
    assert [tool.name for tool in reply.output[0].tools] == ["add"]
    assert reply.output[1].output == '{"result":5}'
    assert (elsewhere.status, elsewhere.error["param"]) == (400, "tools[0].server_url")
    assert "hunter2" not in reply.model_dump_json()
    assert reply.tools[0].server_url == f"http://127.0.0.1:{port}/<redacted>"


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ({"type": "mcp", "server_label": "sums", "name": "add"}, "add"),
        ({"type": "mcp", "server_label": "sums"}, "add"),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "mcp", "server_label": "sums"}],
            },
            "add",
        ),
    ],
)
def test_tool_choice_may_name_an_mcp_server_or_one_of_its_tools(
    scaffold: TurnBuilder, choice: Json, offered: str
) -> None:
    with responding(scaffold, ADD, "Five.", file=FILE) as house:
        reply = made(house, tools=[SUMS, F], tool_choice=choice)
        constraint = house.engine.asked[0][2]

    assert constraint is not None
    assert reply.output[1].name == offered
    assert reply.output_text == "Five."


def test_a_tool_choice_of_a_tool_that_is_not_offered_is_refused(scaffold: TurnBuilder) -> None:
    choice = {"type": "mcp", "server_label": "sums", "name": "divide"}
    with responding(scaffold, "x", file=FILE) as house, pytest.raises(openai.BadRequestError):
        made(house, tools=[SUMS], tool_choice=choice)
