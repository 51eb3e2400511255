"""X-Request-Deadline-Ms holds over every request: what was said until then is the reply."""

import time
from pathlib import Path

import pytest
from support.clients import CHAT, HELLO, sent
from support.scripted_app import eventually, running, scaffold_of

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder

HANGING = ScriptedReply(["Hel", "lo"], "hang")


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.mark.parametrize("n", [1, 2])
def test_a_chat_ends_at_its_deadline_as_far_as_it_came(scaffold: TurnBuilder, n: int) -> None:
    engine = ScriptedEngine(HANGING)
    with running(engine, scaffold) as house:
        began = time.monotonic()
        reply = sent(house, "POST", CHAT, {**HELLO, "n": n}, x_request_deadline_ms="800")

        assert eventually(lambda: engine.open == 0)

    choices = [(one["message"]["content"], one["finish_reason"]) for one in reply.json["choices"]]
    assert choices == [("Hello", "length")] * n
    assert time.monotonic() - began < 5


def test_a_stream_ends_at_its_deadline_with_its_usage(scaffold: TurnBuilder) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    with running(ScriptedEngine(HANGING), scaffold) as house:
        reply = sent(house, "POST", CHAT, body, x_request_deadline_ms="800")

    assert '"finish_reason":"length"' in reply.text
    assert '"completion_tokens":2' in reply.text
    assert reply.text.endswith("data: [DONE]\n\n")


def test_a_response_without_tools_ends_at_its_deadline_incomplete(scaffold: TurnBuilder) -> None:
    body = {"model": "smollm2", "input": "?"}
    with running(ScriptedEngine(HANGING), scaffold) as house:
        reply = sent(house, "POST", "/v1/responses", body, x_request_deadline_ms="800").json

    assert (reply["status"], reply["incomplete_details"]) == ("incomplete", {"reason": "deadline"})
    assert reply["output"][0]["content"][0]["text"] == "Hello"
