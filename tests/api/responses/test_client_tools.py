"""Tools of the client's in every shape that /v1/responses has, offered, called and in a history."""

import json
from typing import Any

import pytest
from support.chat_bodies import Json
from support.clients import sent
from support.response_bodies import F, events_of, made, responding
from support.scripted_app import calls

from falsework.server.generation.turn import TurnBuilder

SPACE: Json = {
    "type": "namespace",
    "name": "agents",
    "description": "Other agents.",
    "tools": [
        {
            "type": "function",
            "name": "close",
            "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
        {"type": "custom", "name": "tell"},
    ],
}
SEARCH: Json = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {
        "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]
    },
}  # fmt: skip
UPDATE = {"type": "update_file", "path": "a.py", "diff": "@@\n-1\n+2"}

CALLS: dict[str, tuple[Json, tuple[str, str], Json]] = {
    "a function of a namespace": (
        SPACE,
        ("agents__close", '{"id": "a1"}'),
        {"type": "function_call", "name": "close", "namespace": "agents",
         "arguments": '{"id": "a1"}'},
    ),
    "a custom tool of a namespace": (
        SPACE,
        ("agents__tell", '{"input": "Hello."}'),
        {"type": "custom_tool_call", "name": "tell", "namespace": "agents", "input": "Hello."},
    ),
    "a local shell": (
        {"type": "local_shell"},
        ("local_shell", '{"command": ["ls", "-l"], "timeout_ms": 1000}'),
        {"type": "local_shell_call",
         "action": {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": 1000,
                    "user": None, "working_directory": None}},
    ),
    "a shell": (
        {"type": "shell", "environment": {"type": "local"}},
        ("shell", '{"commands": ["ls"]}'),
        {"type": "shell_call",
         "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}},
    ),
    "a patch": (
        {"type": "apply_patch"},
        ("apply_patch", json.dumps({"operation": UPDATE})),
        {"type": "apply_patch_call", "operation": UPDATE},
    ),
    "a search of the client's": (
        SEARCH,
        ("tool_search", '{"query": "mail"}'),
        {"type": "tool_search_call", "execution": "client", "arguments": {"query": "mail"}},
    ),
}  # fmt: skip

OUTPUTS: dict[str, tuple[Json, str]] = {
    "function_call": ({"type": "function_call_output", "output": "closed"}, "closed"),
    "custom_tool_call": ({"type": "custom_tool_call_output", "output": "told"}, "told"),
    "local_shell_call": ({"type": "local_shell_call_output", "output": "a.txt"}, "a.txt"),
    "shell_call": (
        {"type": "shell_call_output", "output": [
            {"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
        '"exit_code": 0',
    ),
    "apply_patch_call": (
        {"type": "apply_patch_call_output", "status": "completed", "output": "Done."}, "Done."
    ),
    "tool_search_call": (
        {"type": "tool_search_output", "execution": "client", "status": "completed",
         "tools": [{**F, "name": "send_mail"}]},
        "send_mail",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_is_an_item_of_its_tools_kind_and_goes_back(plain: TurnBuilder, kind: str) -> None:
    tool, said, shown = CALLS[kind]
    output, text = OUTPUTS[shown["type"]]
    with responding(plain, calls(said), "Done.") as house:
        events = events_of(house, tools=[F, tool], store=False)
        (item,) = events[-1].response.output
        answer = {**output, "call_id": item.call_id}
        if shown["type"] == "local_shell_call":
            answer = {**output, "id": item.call_id}
        again = [{"role": "user", "content": "Hello?"}, item.model_dump(exclude_unset=True), answer]
        second = made(house, tools=[F, tool], input=again, store=False)
        tokens, _, _ = house.engine.asked[-1]

    sent_item = item.model_dump(exclude_unset=True)
    assert {key: sent_item[key] for key in shown} == shown
    assert (item.status, bool(item.call_id)) == ("completed", True)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [one.type for one in done] == [shown["type"]]
    assert second.output_text == "Done."
    prompt = plain._prompter.tokenizer.decode(list(tokens))
    assert prompt.index(said[0]) < prompt.rindex(text)


@pytest.mark.parametrize(
    ("tool", "choice", "param"),
    [
        ({**SPACE, "name": "a b"}, "auto", "tools[0].name"),
        ({**SPACE, "tools": [{"type": "function", "name": "x y"}]}, "auto",
         "tools[0].tools[0].name"),
        ({**SPACE, "tools": [{"type": "function"}]}, "auto", "tools[0].tools[0].name"),
        ({"type": "namespace", "name": "x"}, "auto", "tools[0].tools"),
        ({"type": "shell", "environment": {"type": "container_auto"}}, "required", "tool_choice"),
        ({"type": "tool_search"}, "required", "tool_choice"),
        (SPACE, {"type": "namespace", "name": "other"}, "tool_choice"),
        (SPACE, {"type": "function", "name": "other"}, "tool_choice"),
    ],
)  # fmt: skip
def test_a_tool_that_is_wrong_is_refused_by_its_field(
    plain: TurnBuilder, tool: Json, choice: Any, param: str
) -> None:
    body = {"model": "smollm2", "input": "?", "tools": [tool], "tool_choice": choice}
    with responding(plain, "x") as house:
        reply = sent(house, "POST", "/v1/responses", body)

    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "function", "name": "close", "namespace": "agents"}, "agents__close"),
        ({"type": "function", "name": "close"}, "agents__close"),
        ({"type": "custom", "name": "tell"}, "agents__tell"),
        ({"type": "apply_patch"}, "apply_patch"),
        ({"type": "allowed_tools", "mode": "required",
          "tools": [{"type": "web_search"}, {"type": "function", "name": "close"}]},
         "agents__close"),
    ],
)  # fmt: skip
def test_a_choice_finds_the_tool_by_the_name_that_the_client_knows(
    plain: TurnBuilder, choice: Json, said: str
) -> None:
    arguments = {
        "agents__close": "{}",
        "agents__tell": '{"input": "x"}',
        "apply_patch": json.dumps({"operation": UPDATE}),
    }[said]
    tools = [F, SPACE, {"type": "apply_patch"}, {"type": "web_search"}]
    with responding(plain, calls((said, arguments))) as house:
        (item,) = made(house, tools=tools, tool_choice=choice).output

    assert item.type != "message"


@pytest.mark.parametrize(
    "kind",
    ["web_search", "web_search_preview_2025_03_11", "image_generation", "file_search",
     "code_interpreter", "computer_use_preview", "programmatic_tool_calling"],
)  # fmt: skip
def test_a_tool_that_others_run_is_left_out_and_named(plain: TurnBuilder, kind: str) -> None:
    body = {"model": "smollm2", "input": "?", "tools": [F, {"type": kind}]}
    with responding(plain, "Hello.") as house:
        reply = sent(house, "POST", "/v1/responses", body)
        needed = sent(house, "POST", "/v1/responses", {**body, "tool_choice": {"type": kind}})

    assert reply.status == 200
    assert kind in reply.headers["warning"]
    assert reply.json["warnings"][0]["param"] == "tools[1].type"
    assert reply.json["tools"][1] == {"type": kind}
    assert (needed.status, needed.error["param"]) == (400, "tool_choice")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "additional_tools", "role": "developer", "tools": [SPACE]},
        {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": [SPACE]},
    ],
)
def test_tools_may_come_with_the_input(plain: TurnBuilder, item: Json) -> None:
    asked = [item, {"role": "user", "content": "Close it."}]
    with responding(plain, calls(("agents__close", "{}")), "Closed.") as house:
        first = made(house, input=asked)
        (call,) = first.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "yes"}
        second = made(house, input=[output], previous_response_id=first.id)

    assert (call.name, call.namespace) == ("close", "agents")
    assert second.output_text == "Closed."


def test_a_message_says_whether_it_is_the_answer_and_may_say_so_again(plain: TurnBuilder) -> None:
    said = "Let me look.\n" + calls(("f", '{"a": 1}'))
    with responding(plain, said, "It is 2.") as house:
        first = made(house, tools=[F], store=False)
        again = [
            {"role": "user", "content": "Hello?"},
            *[item.model_dump(exclude_unset=True) for item in first.output],
            {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "2"},
        ]
        second = made(house, tools=[F], input=again, store=False)

    assert [first.output[0].phase, second.output[0].phase] == ["commentary", "final_answer"]
