"""Keywords that decoding can't enforce: no call and no answer is let out that breaks them."""

from typing import Any

import pytest
from prometheus_client import REGISTRY
from support.chat_bodies import tool
from support.scripted_app import DIALECT, chunks, scaffold_of, whole
from support.scripted_chat import folded, told

from falsework.grammars.events import Call
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.errors import InvalidSchemaError, OutputCheckFailed
from falsework.server.generation.check_policy import CheckPolicy
from falsework.server.generation.turn import TurnBuilder

Json = dict[str, Any]

TAGS: Json = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "n": {"type": "integer"},
    },
    "required": ["tags"],
    "additionalProperties": False,
}
TWICE = '{"tags": ["a", "b", "a"]}'
ONCE = '{"tags": ["a", "b", "c"]}'
TOOLS = [tool("tag", parameters=TAGS), tool("get")]
ANSWER = {"type": "json_schema", "json_schema": {"name": "t", "schema": TAGS}}


def reply(*arguments: str, text: str = "", pieces: int = 0) -> ScriptedReply:
    """Return a reply with these calls, a character or `pieces` characters a piece."""
    said = text + DIALECT.markup.render([Call("tag", one) for one in arguments])
    size = pieces or 1
    return ScriptedReply([said[at : at + size] for at in range(0, len(said), size)])


def says(*turns: ScriptedReply) -> ScriptedEngine:
    return ScriptedEngine(turns=turns)


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("falsework_output_checks_total", {"result": result}) or 0


def test_a_call_that_satisfies_its_schema_is_let_out_at_the_first_try(plain: TurnBuilder) -> None:
    engine, before = says(reply(ONCE)), counted("passed")

    answer = whole(engine, plain, tools=TOOLS)

    assert told(answer)[2:] == ([("tag", ONCE)], "tool_calls")
    assert len(engine.asked) == 1
    assert counted("passed") == before + 1


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_call_that_breaks_it_is_decoded_again_from_its_beginning(
    plain: TurnBuilder, pieces: int
) -> None:
    first = reply(ONCE, TWICE, text="Let me see. ", pieces=pieces)
    second = reply(ONCE, '{"tags": []}', text="Let me see. ", pieces=pieces)
    engine, before = says(first, second), counted("missed")

    answer = whole(engine, plain, tools=TOOLS)

    assert told(answer) == (
        "Let me see. ", None, [("tag", ONCE), ("tag", '{"tags": []}')], "tool_calls",
    )  # fmt: skip
    _, again = engine.asked
    assert again[2] is not None
    said = "Let me see. " + DIALECT.markup.render([Call("tag", ONCE)])
    assert again[2].opening.startswith(said)
    assert again[2].barred == (b'tag", "arguments": {"tags": ["a", "b", "a"',)
    assert counted("missed") == before + 1


@pytest.mark.parametrize("half_calls", [False, True])
def test_a_stream_never_tells_of_the_call_that_breaks_it(
    plain: TurnBuilder, half_calls: bool
) -> None:
    engine = says(reply(TWICE), reply(ONCE))

    stream = chunks(engine, plain, half_calls=half_calls, tools=TOOLS)

    assert folded(stream)[2:] == ([("tag", ONCE)], "tool_calls")


def test_what_barring_does_not_help_is_sampled_and_then_ends_with_an_error(
    plain: TurnBuilder,
) -> None:
    engine, before = says(reply(TWICE)), counted("failed")

    with pytest.raises(OutputCheckFailed) as failed:
        whole(engine, plain, tools=TOOLS, temperature=0)

    assert [sampling.temperature for _, sampling, _ in engine.asked] == [0, 0, 1]
    for named in ("'uniqueItems'", "'tag'", "/properties/tags/uniqueItems", '["a", "b", "a"]'):
        assert named in str(failed.value).replace('"a","b"', '"a", "b"')
    assert counted("failed") == before + 1


def test_each_choice_is_judged_for_itself(plain: TurnBuilder) -> None:
    engine = ScriptedEngine(reply(ONCE), reply(TWICE))

    answer = whole(engine, plain, tools=TOOLS, n=2)

    assert [told(answer, number)[2] for number in (0, 1)] == [[("tag", ONCE)]] * 2
    assert [sampling.n for _, sampling, _ in engine.asked] == [2, 1]


def test_an_answer_is_held_until_it_satisfies_its_schema(plain: TurnBuilder) -> None:
    engine = says(ScriptedReply(list(TWICE)), ScriptedReply(list(ONCE)))

    stream = chunks(engine, plain, response_format=ANSWER)

    assert folded(stream)[0] == ONCE
    assert len(engine.asked) == 2


def test_an_answer_that_never_satisfies_it_ends_with_an_error(plain: TurnBuilder) -> None:
    with pytest.raises(OutputCheckFailed, match="The answer doesn't satisfy 'uniqueItems'"):
        whole(says(ScriptedReply(list(TWICE))), plain, response_format=ANSWER)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {
            "name": "tag", "parameters": TAGS, "strict": True}}]}, "tools[0].function.parameters"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "t", "schema": TAGS, "strict": True}}}, "response_format.json_schema.schema"),
    ],
)  # fmt: skip
def test_strict_refuses_such_a_keyword_with_a_hint(
    plain: TurnBuilder, fields: Json, param: str
) -> None:
    hint = r"'uniqueItems' can't be enforced .* boolean"
    with pytest.raises(InvalidSchemaError, match=hint) as refused:
        whole(says(reply(ONCE)), plain, **fields)

    assert refused.value.param == param


def test_the_operator_may_refuse_such_keywords(smollm2: Any) -> None:
    builder = scaffold_of(smollm2, checks=CheckPolicy("refuse"))

    with pytest.raises(InvalidSchemaError, match="uniqueItems"):
        whole(says(reply(ONCE)), builder, tools=TOOLS)


def test_a_schema_that_takes_forever_to_judge_costs_its_own_reply(plain: TurnBuilder) -> None:
    """Each level trebles what a validator visits."""
    levels: Json = {"d0": {"type": "array", "uniqueItems": True, "items": {"type": "string"}}}
    for number in range(1, 19):
        below = {"$ref": f"#/$defs/d{number - 1}"}
        levels[f"d{number}"] = {"allOf": [below] * 3}
    schema = {
        "type": "object",
        "properties": {"tags": {"$ref": "#/$defs/d18"}},
        "required": ["tags"],
        "additionalProperties": False,
        "$defs": levels,
    }

    with pytest.raises(OutputCheckFailed, match="can't be told"):
        whole(says(reply(ONCE)), plain, tools=[tool("tag", parameters=schema)])
