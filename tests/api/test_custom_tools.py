"""Custom tools: text, free or of a grammar, instead of JSON arguments."""

from typing import Any

import pytest
from support.chat_bodies import USER, asked
from support.llguidance_walk import accepts, matcher
from support.scripted_app import DIALECT, chunks, whole
from support.scripted_chat import says

from falsework.grammars.events import Call
from falsework.server.errors import BadRequestError
from falsework.server.generation.turn import TurnBuilder

Json = dict[str, Any]

SUM = 'start: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]+/'


def custom(name: str = "calc", **grammar: str) -> Json:
    form = {"format": {"type": "grammar", "grammar": grammar}} if grammar else {}
    return {"type": "custom", "custom": {"name": name, **form}}


def text_call(text: str) -> str:
    """Return a call as the model says it: its text ends the reply."""
    markup = DIALECT.markup
    return markup.prefix + "calc" + markup.after_name + text


LARK = custom(definition=SUM, syntax="lark")
REGEX = custom(definition=r'[a-z"]+\d', syntax="regex")
AS_JSON = {
    "free text": (custom(), 'x "y"\n', Call("calc", '{"input": "x \\"y\\"\\n"}')),
    "a regex": (REGEX, 'a"7', Call("calc", '{"input": "a\\"7"}')),
}


@pytest.mark.parametrize("kind", AS_JSON)
@pytest.mark.parametrize("streamed", [False, True])
def test_text_is_the_one_argument_of_a_call(plain: TurnBuilder, kind: str, streamed: bool) -> None:
    tool, text, call = AS_JSON[kind]

    made = calls_of(plain, DIALECT.markup.render([call]), [tool], streamed=streamed)

    assert made == [("custom", {"name": "calc", "input": text})]


@pytest.mark.parametrize("streamed", [False, True])
def test_text_of_a_lark_grammar_ends_the_reply(plain: TurnBuilder, streamed: bool) -> None:
    engine_says = DIALECT.markup.render([Call("f", "{}")]) + DIALECT.markup.separator
    tools = [{"type": "function", "function": {"name": "f"}}, LARK]

    made = calls_of(plain, engine_says + text_call("12+3"), tools, streamed=streamed)

    assert made == [
        ("function", {"name": "f", "arguments": "{}"}),
        ("custom", {"name": "calc", "input": "12+3"}),
    ]


def calls_of(
    plain: TurnBuilder, said: str, tools: list[Json], *, streamed: bool
) -> list[tuple[str, Json]]:
    fields: Json = {"tools": tools}
    if not streamed:
        (choice,) = whole(says(*said), plain, **fields)["choices"]
        assert choice["finish_reason"] == "tool_calls"
        return [(call["type"], call[call["type"]]) for call in choice["message"]["tool_calls"]]
    made: dict[int, tuple[str, Json]] = {}
    for chunk in chunks(says(*said), plain, **fields):
        for call in chunk["choices"][0]["delta"].get("tool_calls", []):
            kind = call.get("type", "function")
            if call["index"] in made:
                made[call["index"]][1]["arguments"] += call["function"]["arguments"]
            else:
                made[call["index"]] = (kind, dict(call[kind]))
    return list(made.values())


def test_the_constraint_of_a_lark_tool_admits_its_text_and_no_other(plain: TurnBuilder) -> None:
    engine = says(*text_call("1+2"))

    whole(engine, plain, tools=[LARK], tool_choice={"type": "custom", "custom": {"name": "calc"}})

    (_, _, constraint) = engine.asked[0]
    assert constraint is not None
    grammar = matcher(constraint.grammar.decode())
    assert accepts(grammar, text_call("1+22"))
    assert not accepts(grammar, text_call("1+"))
    assert not accepts(grammar, text_call('{"input": "1"}'))


def test_a_call_of_a_custom_tool_is_history() -> None:
    call = {"id": "c1", "type": "custom", "custom": {"name": "calc", "input": "1+1"}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]

    request = asked(messages=messages, tools=[LARK])

    assert request.messages[1].calls == (Call("calc", '{"input": "1+1"}'),)


@pytest.mark.parametrize(
    ("tool", "param", "reason"),
    [
        (custom(definition="start: x", syntax="lark"), ".custom.format.grammar.definition", "x"),
        (custom(definition="(", syntax="regex"), ".custom.format.grammar.definition", "pattern"),
        (custom(definition="a", syntax="ebnf"), ".custom.format.grammar.syntax", "lark"),
        (
            {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar"}}},
            ".custom.format.grammar",
            "Missing",
        ),
        (custom(name="a b"), ".custom.name", "pattern"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_field(
    plain: TurnBuilder, tool: Json, param: str, reason: str
) -> None:
    with pytest.raises(BadRequestError, match=reason) as refused:
        whole(says("x"), plain, tools=[tool])

    assert refused.value.param == f"tools[0]{param}"
