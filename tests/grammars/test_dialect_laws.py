"""The laws that every dialect keeps, with real tokenizers walked through the real automaton."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import real_tokenizers
from support.family_replies import TOOLS, automaton_of, form_of, parsed, read, thought
from support.json_schema import faults
from support.walker import Walker

from falsework.grammars import json_values
from falsework.grammars.dfa import START, compile_dfa
from falsework.grammars.events import Call
from falsework.grammars.masks import TokenMasks, tokens_in_mask
from falsework.grammars.reply_grammar import reply_grammar
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning

DIALECTS_THAT_ARE = [
    *DIALECTS.values(),
    *(with_reasoning(dialect) for dialect in DIALECTS.values() if dialect.reasoning),
]
WELL_FORMED = st.text(max_size=12).filter(lambda t: not any(0xD800 <= ord(c) <= 0xDFFF for c in t))

LEVELS = st.lists(st.integers(-9, 9).map(lambda n: n / 4), max_size=3)


def name_of(dialect: Dialect) -> str:
    return dialect.name + ("-think" if dialect.think else "")


each_dialect = pytest.mark.parametrize("dialect", DIALECTS_THAT_ARE, ids=name_of)
# The small vocabulary for every family, the large ones for the two oldest.
each_dialect_and_tokenizer = pytest.mark.parametrize(
    ("dialect", "name"),
    [
        *(pytest.param(one, "smollm2", id=f"smollm2-{name_of(one)}") for one in DIALECTS_THAT_ARE),
        *(
            pytest.param(
                one, large.values[0], id=f"{large.values[0]}-{name_of(one)}", marks=large.marks
            )
            for one in DIALECTS_THAT_ARE
            for large in real_tokenizers.LARGE
            if one.name in {"hermes", "deepseek_r1"}
        ),
    ],
)
some = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def calls(draw: st.DrawFn, dialect: Dialect) -> list[Call]:
    made = []
    most = 3 if dialect.markup.parallel else 1
    for tool in draw(st.lists(st.sampled_from(TOOLS[:2]), min_size=1, max_size=most)):
        arguments: dict[str, object] = {}
        if tool.parameters:
            arguments["city"] = draw(WELL_FORMED)
            optional = {
                "days": st.integers(-(10**15), 10**15),
                "unit": st.sampled_from(["celsius", "fahrenheit", "°"]),
                "detail": st.fixed_dictionaries(
                    {}, optional={"wind": st.booleans(), "levels": LEVELS}
                ).map(lambda drawn: {k: drawn[k] for k in ("wind", "levels") if k in drawn}),
                "note": st.none() | WELL_FORMED,
            }  # fmt: skip
            arguments |= {k: draw(v) for k, v in optional.items() if draw(st.booleans())}
        made.append(Call(tool.name, json_values.dumps(arguments)))
    return made


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@each_dialect
@given(data=st.data())
@some
def test_it_reads_what_it_wrote_however_the_reply_is_cut(
    dialect: Dialect, data: st.DataObject
) -> None:
    said = data.draw(calls(dialect))
    form = form_of(dialect)
    written = thought(form) + dialect.markup.render(said)

    heard = read(form, data.draw(cut(written)))

    assert parsed(said) == parsed(heard.calls)
    assert heard.text == ""
    assert heard.reasoning == ("Hm. </thin" if dialect.think else "")


@each_dialect
@pytest.mark.parametrize("mode", ["auto", "required"])
@given(data=st.data())
@some
def test_the_constraint_admits_what_it_writes(
    dialect: Dialect, mode: str, data: st.DataObject
) -> None:
    said = data.draw(calls(dialect))
    form = form_of(dialect, mode)

    assert automaton_of(form).accepts(thought(form) + dialect.markup.render(said))


@each_dialect_and_tokenizer
def test_every_token_of_what_it_writes_is_in_the_mask(
    dialect: Dialect, name: str, smollm2: Path
) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    form = form_of(dialect)
    arguments = {"city": 'Zürich "é" 東京 \n', "days": 3, "unit": "°"}
    arguments |= {"detail": {"wind": True, "levels": [1.5, -2.0]}, "note": None}
    said = [Call("get_weather", json_values.dumps(arguments)), Call("get", "{}")]
    said = said if dialect.markup.parallel else said[:1]
    automaton = compile_dfa(reply_grammar(form), tokenizer.vocabulary.alphabet)
    masks = TokenMasks(automaton, tokenizer.vocabulary, tokenizer.width)
    state = START

    for token in tokenizer.encode(thought(form) + dialect.markup.render(said)):
        spelled = tokenizer.vocabulary.tokens[token]
        assert token in tokens_in_mask(masks.mask_for(state)), spelled
        state = automaton.step(state, spelled)

    assert set(tokenizer.vocabulary.ends) <= set(tokens_in_mask(masks.mask_for(state)))


@each_dialect_and_tokenizer
@pytest.mark.parametrize("seed", range(2))
def test_a_model_that_says_anything_says_right_calls(
    dialect: Dialect, name: str, seed: int, smollm2: Path
) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    form = form_of(dialect, "required")
    automaton = compile_dfa(reply_grammar(form), tokenizer.vocabulary.alphabet)

    said = Walker(automaton).say(seed, steps=120)

    calls_made = read(form, [said]).calls
    assert calls_made
    for call in calls_made:
        schema = next(tool.parameters for tool in TOOLS if tool.name == call.name)
        assert faults(json.loads(call.arguments), schema) == [], call


@each_dialect
@given(data=st.data())
@some
def test_the_other_spellings_that_models_fall_into_are_calls_too(
    dialect: Dialect, data: st.DataObject
) -> None:
    said = data.draw(calls(dialect))
    form = form_of(dialect)
    for habit in dialect.markup.habits:
        written = thought(form) + habit.render(said)

        assert automaton_of(form).accepts(written)
        assert parsed(said) == parsed(read(form, data.draw(cut(written))).calls)
        assert not automaton_of(form_of(dialect, "required")).accepts(written)


@each_dialect
@given(data=st.data())
@some
def test_a_call_cut_short_is_never_reported_as_a_call(
    dialect: Dialect, data: st.DataObject
) -> None:
    said = data.draw(calls(dialect))
    form = form_of(dialect)
    written = thought(form) + dialect.markup.render(said)
    at = data.draw(st.integers(0, len(written) - 1))

    heard = read(form, data.draw(cut(written[:at])), complete=False)

    assert parsed(heard.calls) == parsed(said[: len(heard.calls)])
    if len(heard.calls) == len(said):
        # Only what stands behind the last call may be missing.
        behind = dialect.markup.render(said)[: -len(dialect.markup.closing) or None]
        assert at >= len(thought(form)) + len(behind)


@each_dialect
def test_a_tool_that_was_not_offered_cannot_be_called(dialect: Dialect) -> None:
    for wrong in ("get_weather", "rm_rf", "ge", "gett", ""):
        written = dialect.markup.render([Call(wrong, '{"city": "x"}')])
        for mode in ("auto", "required"):
            form = form_of(dialect, mode, only=frozenset({"get"}))

            assert not automaton_of(form).accepts(thought(form) + written)


@each_dialect
def test_wrong_arguments_cannot_be_said(dialect: Dialect) -> None:
    form = form_of(dialect, "required")
    wrongs = ({}, {"city": "x", "zz": 1}, {"unit": "°"}, {"city": "x", "days": "three"})
    for wrong in wrongs:
        written = dialect.markup.render([Call("get_weather", json_values.dumps(wrong))])

        assert not automaton_of(form).accepts(thought(form) + written)


@each_dialect
def test_what_is_said_without_quotes_is_heard_as_the_type_that_the_schema_names(
    dialect: Dialect,
) -> None:
    form = form_of(dialect, "required")
    elements = dialect.markup.elements
    raw = elements is not None and not elements.after_string_key
    for odd in ({"city": 5}, {"city": "x", "days": "3"}):
        written = dialect.markup.render([Call("get_weather", json_values.dumps(odd))])

        assert automaton_of(form).accepts(thought(form) + written) == raw
        if raw:
            (call,) = read(form, [thought(form) + written]).calls
            assert faults(json.loads(call.arguments), TOOLS[0].parameters) == []


@each_dialect
def test_tool_choice_means_the_same_in_every_family(dialect: Dialect) -> None:
    one = dialect.markup.render([Call("get", "{}")])
    two = dialect.markup.render([Call("get", "{}"), Call("get", "{}")])
    text = dialect.markup.render_answer("Hello 世界")
    several = dialect.markup.parallel
    admitted = {
        "none": (True, False, False), "auto": (True, True, several),
        "required": (False, True, several),
    }  # fmt: skip
    for mode, expected in admitted.items():
        form = form_of(dialect, mode)
        said = [automaton_of(form).accepts(thought(form) + reply) for reply in (text, one, two)]
        if mode == "none" and not dialect.markup.trigger:
            said[1:] = [bool(read(form, [thought(form) + r]).calls) for r in (one, two)]
        assert tuple(said) == expected, mode
    alone = form_of(dialect, "required", parallel=False)
    assert automaton_of(alone).accepts(thought(alone) + one)
    assert not automaton_of(alone).accepts(thought(alone) + two)


@each_dialect
def test_an_answer_is_heard_without_its_marks(dialect: Dialect) -> None:
    for mode in ("auto", "none"):
        form = form_of(dialect, mode)

        heard = read(form, list(thought(form) + dialect.markup.render_answer("It's 21 °C.")))

        assert (heard.text, heard.calls) == ("It's 21 °C.", [])


@each_dialect
def test_text_and_then_a_call_is_both(dialect: Dialect) -> None:
    if not dialect.markup.trigger or (
        dialect.markup.answer_opening and not dialect.markup.text_opening
    ):
        pytest.skip("calls of this family stand only at the beginning of a reply")
    form = form_of(dialect)
    said = [Call("get", "{}")]
    reply = dialect.markup.render_text("Sure <tool.\n") + dialect.markup.render(said)

    heard = read(form, list(thought(form) + reply))

    assert automaton_of(form).accepts(thought(form) + reply)
    assert ("Sure <tool.\n", said) == (heard.text, heard.calls)


@each_dialect
def test_a_call_cannot_be_said_as_text(dialect: Dialect) -> None:
    if not dialect.markup.trigger:
        pytest.skip("calls of this family stand only at the beginning of a reply")
    call = dialect.markup.render([Call("rm_rf", "{}")])
    for mode in ("none", "auto"):
        form = form_of(dialect, mode)

        assert not automaton_of(form).accepts(
            thought(form) + dialect.markup.render_answer("Sure. " + call)
        )


@each_dialect
def test_a_reply_that_begins_like_a_call_must_be_one(dialect: Dialect) -> None:
    form = form_of(dialect)
    automaton = automaton_of(form)
    likely = [text for text in ('```json\n{"name": "ge"', '{"nam', '[{"name"')
              if text[0] in dialect.markup.barred]  # fmt: skip
    for beginning in (*likely, "  ", "\r\nHello"):
        text = thought(form) + dialect.markup.render_answer(beginning + "x")

        assert not automaton.accepts(text)
    stem = (
        dialect.markup.prefix.partition("{")[0]
        if "{n}" in dialect.markup.prefix
        else dialect.markup.prefix
    )
    assert automaton.step(START, (thought(form) + stem).encode())
