"""What stands beside POST /v1/responses: counting, compacting, truncating, sealed reasoning."""

from typing import Any

import pytest
from support.chat_bodies import Json
from support.clients import client, sent
from support.response_bodies import F, made, responding

from falsework.server.generation.turn import TurnBuilder

LONG: list[Json] = [
    {"role": role, "content": f"{role} {i}: " + "word " * 300}
    for i in range(9)
    for role in ("user", "assistant")
]
LAST: Json = {"role": "user", "content": "And now?"}


def test_input_tokens_are_those_of_the_response(plain: TurnBuilder) -> None:
    asked: Any = {"model": "smollm2", "input": "Hello?", "instructions": "Be brief.", "tools": [F]}
    with responding(plain, "Hello.") as house, client(house) as sdk:
        counted = sdk.responses.input_tokens.count(**asked)
        usage = sdk.responses.create(**asked).usage

    assert usage is not None
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", usage.input_tokens)


def test_a_conversation_is_compacted_and_goes_on(plain: TurnBuilder) -> None:
    conversation: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello, Ada."},
    ]
    with (
        responding(plain, "The user is Ada.", "The user is Ada.", "Ada.") as house,
        client(house) as sdk,
    ):
        read = sdk.responses.compact(model="smollm2", input=conversation)
        body = {"model": "smollm2", "input": conversation}
        compacted = sent(house, "POST", "/v1/responses/compact", body).json
        again = {"model": "smollm2", "input": [*compacted["output"], LAST]}
        after = sent(house, "POST", "/v1/responses", again).json
        tokens, _, _ = house.engine.asked[-1]

    assert read.object == "response.compaction"
    assert [one["type"] for one in compacted["output"]] == ["message", "compaction"]
    assert compacted["usage"]["output_tokens"] > 0
    assert after["status"] == "completed"
    prompt = plain._prompter.tokenizer.decode(list(tokens))
    assert prompt.index("My name is Ada.") < prompt.index("The user is Ada.")
    assert "Hello, Ada." not in prompt


def test_a_compaction_of_another_server_is_refused(plain: TurnBuilder) -> None:
    item = {"type": "compaction", "encrypted_content": "gAAAAABo"}
    with responding(plain, "x") as house:
        reply = sent(house, "POST", "/v1/responses", {"model": "smollm2", "input": [item, LAST]})

    assert (reply.status, reply.error["param"]) == (400, "input[0].encrypted_content")


def test_truncation_leaves_out_what_is_oldest(plain: TurnBuilder) -> None:
    body = {"model": "smollm2", "input": [*LONG, LAST], "instructions": "Be brief."}
    with responding(plain, "Hello.") as house:
        refused = sent(house, "POST", "/v1/responses", body)
        reply = sent(house, "POST", "/v1/responses", {**body, "truncation": "auto"})
        hopeless = {**body, "input": "word " * 5000, "truncation": "auto"}
        too_long = sent(house, "POST", "/v1/responses", hopeless)
        tokens, _, _ = house.engine.asked[-1]

    assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
    assert (too_long.status, too_long.error["code"]) == (400, "context_length_exceeded")
    assert reply.status == 200
    assert reply.json["warnings"][0]["code"] == "input_truncated"
    prompt = plain._prompter.tokenizer.decode(list(tokens))
    assert "user 0:" not in prompt
    assert prompt.index("Be brief.") < prompt.index("user 8:") < prompt.index("And now?")


def test_a_context_that_is_not_managed_is_told(plain: TurnBuilder) -> None:
    managed = {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}
    with responding(plain, "Hello.") as house:
        body = {"model": "smollm2", "input": "?", **managed}
        reply = sent(house, "POST", "/v1/responses", body)

    assert reply.status == 200
    assert reply.json["warnings"][0]["code"] == "context_not_managed"


@pytest.mark.parametrize("wanted", [True, False])
def test_reasoning_is_sealed_for_a_client_that_keeps_it(thinker: TurnBuilder, wanted: bool) -> None:
    include = {"include": ["reasoning.encrypted_content"]} if wanted else {}
    with responding(thinker, "<think>\nHm.\n</think>\n\nHello.") as house:
        thought, _ = made(house, store=False, **include).output

    assert bool(thought.encrypted_content) is wanted
