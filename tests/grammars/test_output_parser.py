"""The parser trusts the constraint: it repairs nothing and changes nothing."""

import pytest
from support.family_replies import form_of, read, thought

from falsework.grammars.events import Call
from falsework.grammars.output_parser import OutputParseError
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning

DIALECTS_THAT_ARE = [
    *DIALECTS.values(),
    *(with_reasoning(dialect) for dialect in DIALECTS.values() if dialect.reasoning),
]


def name_of(dialect: Dialect) -> str:
    return dialect.name + ("-think" if dialect.think else "")


def test_a_reply_that_breaks_its_promise_is_a_misread_not_a_guess() -> None:
    form = form_of(DIALECTS["hermes"], "required")
    for broken in ("<tool_call>{}", '<tool_call>\n{"name": "get", "arguments": {}} </tool_call>'):
        with pytest.raises(OutputParseError):
            read(form, [broken])
    with pytest.raises(OutputParseError):
        read(form, ['<tool_call>\n{"name": "get"'])


def test_arguments_are_text_and_nobody_re_serialises_them() -> None:
    form = form_of(DIALECTS["hermes"])
    untidy = Call("get_weather", '{"city":"\\u00e9\\/","days":1e0,\n "city":"x"}')

    assert [untidy] == read(form, [DIALECTS["hermes"].markup.render([untidy])]).calls


@pytest.mark.parametrize("name", DIALECTS)
def test_a_reply_may_be_cut_anywhere_also_between_two_calls(name: str) -> None:
    markup, form = DIALECTS[name].markup, form_of(DIALECTS[name])
    said = [Call("get", "{}"), Call("get", "{}")] if markup.parallel else [Call("get", "{}")]
    written = markup.render(said)

    for length in range(len(written)):
        heard = read(form, [written[:length]], complete=False)

        assert heard.calls == said[: len(heard.calls)]


@pytest.mark.parametrize("dialect", DIALECTS_THAT_ARE, ids=name_of)
def test_wherever_a_reply_is_cut_no_part_of_a_mark_is_heard(dialect: Dialect) -> None:
    calls = dialect.markup.render([Call("get_weather", '{"city": "Paris"}'), Call("get", "{}")])
    texts = {"": calls, "It's 21 °C.": dialect.markup.render_answer("It's 21 °C.")}
    for text, said in texts.items():
        form = form_of(dialect)
        written = thought(form) + said
        for at in range(len(written)):
            heard = read(form, [written[:at]], complete=False)

            assert text.startswith(heard.text), written[:at]
            assert "Hm. </thin".startswith(heard.reasoning), written[:at]
