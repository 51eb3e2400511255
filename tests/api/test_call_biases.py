"""Which bias is on a call: the request's, the server's, or what was measured of the model."""

from typing import Any

import pytest
from support.chat_bodies import answer, called, refusal, tool
from support.clients import sent
from support.scripted_app import calls, running, whole
from support.scripted_chat import says

from falsework.prompts import CallProfile, call_profile
from falsework.server.cli.process import profile_of
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings

TOOLS = [tool("f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})]
USER = {"role": "user", "content": "?"}
RESULT = [USER, called("c"), answer("c")]
MEASURED = CallProfile(1.0, 2.0, 3.0)


@pytest.fixture
def measured(plain: TurnBuilder) -> Any:
    before, plain.profile = plain.profile, MEASURED
    yield plain
    plain.profile = before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"first": 1.0, "another": 3.0}),
        ({"messages": RESULT}, {"first": 2.0, "another": 3.0}),
        ({"tool_call_bias": -4}, {"first": -4.0, "another": 3.0}),
        ({"messages": RESULT, "tool_call_bias": 0}, {"first": 0.0, "another": 3.0}),
        ({"parallel_tool_calls": True}, {"first": 1.0, "another": 0.0}),
        ({"parallel_tool_calls": False}, {"first": 1.0}),
        ({"tool_choice": "required"}, {"another": 3.0}),
        ({"tool_choice": "none"}, {}),
    ],
)
def test_a_chat_s_biases_reach_the_engine(
    fields: dict[str, Any], expected: dict[str, float], measured: TurnBuilder
) -> None:
    said = "Hi" if fields.get("tool_choice") != "required" else calls(("f", "{}"))
    engine = says(said)

    whole(engine, measured, **{"tools": TOOLS, **fields})

    constraint = engine.asked[0][2]
    decisions = constraint.decisions if constraint else ()
    assert {one.kind: one.bias for one in decisions} == expected


def test_a_response_s_bias_reaches_the_engine(measured: TurnBuilder) -> None:
    engine = says("Hi")
    body = {
        "model": "smollm2",
        "input": "?",
        "tools": [{"type": "function", **TOOLS[0]["function"]}],
        "tool_call_bias": 2.5,
    }

    with running(engine, measured) as house:
        assert sent(house, "POST", "/v1/responses", body).status == 200

    constraint = engine.asked[0][2]
    assert constraint is not None
    assert {one.kind: one.bias for one in constraint.decisions}["first"] == 2.5


@pytest.mark.parametrize("bias", [-101, 101, "much"])
def test_a_bias_out_of_range_is_refused_by_name(bias: object) -> None:
    assert refusal(tools=TOOLS, tool_call_bias=bias).param == "tool_call_bias"


def test_settings_win_over_what_was_measured() -> None:
    measured = call_profile("scaffold", "smollm2")

    assert profile_of(Settings(), "scaffold") == measured
    assert profile_of(Settings(model="other/model"), "scaffold") == call_profile("scaffold")
    assert profile_of(Settings(model="other/model"), "llama3") == CallProfile()
    assert profile_of(Settings(tool_call_bias=0, another_call_bias=1), "scaffold") == CallProfile(
        0.0, measured.after_result_bias, 1.0
    )
