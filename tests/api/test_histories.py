"""Histories as clients have them: what stands between, ids that are no good, what is lost."""

import json
import time
from typing import Any

import pytest
from support.chat_bodies import USER, Json, answer, called, parts

from falsework.prompts.messages import Message
from falsework.server.api.chat.request import to_generation_request
from falsework.server.api.chat.schema import parse
from falsework.server.api.responses.messages import to_messages
from falsework.server.api.sealed import REASONING, sealed
from falsework.server.errors import BadRequestError
from falsework.server.observability import collect_warnings
from falsework.server.settings import Settings

ASKED: Json = {"role": "user", "content": "Look."}
HOOK: Json = {"role": "developer", "content": "hook: registered"}
IMAGE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def call(call_id: str | None = "c1", name: str = "look", **fields: Any) -> Json:
    given = {} if call_id is None else {"call_id": call_id}
    return {"type": "function_call", **given, "name": name, "arguments": "{}", **fields}


def output(text: Any = "seen", call_id: str | None = "c1") -> Json:
    given = {} if call_id is None else {"call_id": call_id}
    return {"type": "function_call_output", **given, "output": text}


def chat(*messages: Json, keep: bool = False) -> tuple[Message, ...]:
    body = json.dumps({"model": "m", "messages": messages}).encode()
    settings = Settings(orphaned_results="keep" if keep else "refuse")
    return to_generation_request(parse(body), settings).messages


def told(messages: tuple[Message, ...]) -> list[str]:
    """Return roles and texts; of calls the names, of results the texts."""
    return [
        f"{one.role}: {one.text}{' '.join(call.name for call in one.calls)}" for one in messages
    ]


BETWEEN = ["user: Look.", "assistant: look", "tool: seen"]


@pytest.mark.parametrize(
    ("between", "then"),
    [
        (HOOK, "system: hook: registered"),
        ({"role": "user", "content": "wait"}, "user: wait"),
        ({"role": "assistant", "content": "Looking."}, "assistant: Looking."),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, None),
    ],
)
def test_what_stands_between_a_call_and_its_output_comes_after_it(
    between: Json, then: str | None
) -> None:
    messages = to_messages([ASKED, call(), between, output(), ASKED], None)

    assert told(messages) == [*BETWEEN, *([then] if then else []), "user: Look."]


def test_what_stands_between_a_call_and_its_result_comes_after_it_in_chat_too() -> None:
    messages = chat(USER, called("a", "b"), answer("b"), HOOK, answer("a"), USER)

    assert [one.role for one in messages] == [
        "user", "assistant", "tool", "tool", "system", "user"]  # fmt: skip
    assert [one.call_id for one in messages[2:4]] == ["a", "b"]


def test_the_same_id_twice_is_paired_by_order() -> None:
    items = [ASKED, call("c", "one"), call("c", "two"), output("ALPHA", "c"), output("BETA", "c")]

    messages = to_messages(items, None)

    assert told(messages)[1:] == ["assistant: one two", "tool: ALPHA", "tool: BETA"]


def test_an_id_that_every_turn_uses_again_belongs_to_its_turn() -> None:
    turns = [[ASKED, call("call_0", f"f{i}"), output(f"r{i}", "call_0")] for i in range(3)]

    messages = to_messages([item for turn in turns for item in turn], None)

    assert told(messages)[1:3] == ["assistant: f0", "tool: r0"]
    assert told(messages)[-2:] == ["assistant: f2", "tool: r2"]


@pytest.mark.parametrize("call_id", ["", None])
def test_results_without_an_id_are_paired_by_order(call_id: str | None) -> None:
    items = [
        ASKED,
        call(call_id, "one"),
        call(call_id, "two"),
        output("1", call_id),
        output("2", call_id),
    ]

    assert told(to_messages(items, None))[1:] == ["assistant: one two", "tool: 1", "tool: 2"]


def test_chat_results_without_an_id_are_paired_by_order() -> None:
    made = {"role": "assistant", "tool_calls": [
        {"type": "function", "function": {"name": name, "arguments": ""}}
        for name in ("one", "two")]}  # fmt: skip

    messages = chat(USER, made, *({"role": "tool", "content": text} for text in "12"))

    assert told(messages)[1:] == ["assistant: one two", "tool: 1", "tool: 2"]


@pytest.mark.parametrize("arguments", ["", "{}"])
def test_a_call_without_arguments_has_an_empty_object(arguments: str) -> None:
    messages = chat(USER, called("a", arguments=arguments), answer("a"))

    assert messages[1].calls[0].arguments == "{}"


def test_a_result_too_many_has_no_call() -> None:
    with pytest.raises(BadRequestError, match="No tool call found"):
        to_messages([ASKED, call(None), output("1", None), output("2", None)], None)


ORPHANS = {
    "chat": lambda keep: chat(USER, answer("gone"), USER, keep=keep),
    "responses": lambda keep: to_messages(
        [ASKED, output("42", "gone"), ASKED], None, orphans="keep" if keep else "refuse"
    ),
}


@pytest.mark.parametrize("api", ORPHANS)
def test_a_result_without_its_call_is_refused_or_kept_as_text(api: str) -> None:
    collect_warnings()

    with pytest.raises(BadRequestError):
        ORPHANS[api](False)
    kept = ORPHANS[api](True)

    assert [one.role for one in kept] == ["user", "user", "user"]
    assert "42" in kept[1].text


def test_a_long_history_is_paired_in_time_that_grows_with_its_length() -> None:
    def seconds(turns: int) -> float:
        items = [item for i in range(turns) for item in (call(f"c{i}"), output("x", f"c{i}"))]
        began = time.process_time()
        to_messages([ASKED, *items], None)
        return time.process_time() - began

    assert seconds(4000) < 12 * seconds(1000)


def test_a_call_that_nobody_answered_is_refused() -> None:
    with pytest.raises(BadRequestError, match="c1"):
        to_messages([ASKED, call(), ASKED], None)
    with pytest.raises(BadRequestError, match=r"messages: a$"):
        chat(USER, called("a"), USER)


def test_an_image_in_a_result_is_told_in_words() -> None:
    warnings = collect_warnings()

    seen = chat(USER, called("a"), {**answer("a"), "content": [*parts("shot"), IMAGE]})
    image = {"type": "input_image", "image_url": IMAGE["image_url"]["url"]}
    items = [ASKED, call(), output([{"type": "input_text", "text": "shot"}, image])]
    shown = to_messages(items, None)

    said = "shot\n[image/png of 1 kB left out: this model reads text alone]"
    assert (seen[2].text, shown[2].text) == (said, said)
    assert [one.param for one in warnings] == ["messages.[2].content[1]", "input[2].output[1]"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "input_file", "filename": "a.pdf"}, "[file named a.pdf left out"),
        ({"type": "input_image", "image_url": "https://x.y/z.png"}, "[image at https://x.y/z.png"),
        ({"type": "input_audio", "data": "AAAA" * 1000}, "[sound of 3 kB left out"),
    ],
)
def test_what_is_left_out_is_named(part: Json, said: str) -> None:
    messages = to_messages([ASKED, call(), output([part])], None)

    assert messages[2].text.startswith(said)


def test_an_image_that_is_asked_about_is_refused_and_one_of_before_is_told_in_words() -> None:
    shown = {"role": "user", "content": [*parts("What is it?"), IMAGE]}

    with pytest.raises(BadRequestError) as refused:
        chat(shown)
    later = chat(shown, {"role": "assistant", "content": "I can't see it."}, USER)

    assert refused.value.param == "messages.[0].content[1].type"
    assert later[0].text.startswith("What is it?\n[image/png")


def test_reasoning_comes_back_from_what_the_client_kept() -> None:
    kept = {"type": "reasoning", "summary": [], "encrypted_content": sealed("Hm.", REASONING)}
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo"}

    assert to_messages([ASKED, kept, call(), output()], None)[1].reasoning == "Hm."
    assert to_messages([ASKED, foreign, call(), output()], None)[1].reasoning == ""
