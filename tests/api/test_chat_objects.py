"""The objects that a client receives: their fields, their order, their counts."""

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from support.scripted_app import calls, chunks, whole
from support.scripted_chat import TOOLS, F, G, folded, says, told

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder


def test_ids_are_unique(plain: TurnBuilder) -> None:
    reply = whole(says(calls(F, G, G)), plain, tools=TOOLS, parallel_tool_calls=True)

    ids = {call["id"] for call in reply["choices"][0]["message"]["tool_calls"]}

    assert len(ids) == 3


def test_every_chunk_repeats_who_it_belongs_to(plain: TurnBuilder) -> None:
    stream = chunks(says("a", "b"), plain)

    heads = {(c["id"], c["created"], c["model"], c["object"]) for c in stream}

    assert len(heads) == 1
    assert next(iter(heads))[3] == "chat.completion.chunk"


def test_the_role_comes_first_and_text_only_where_it_came(plain: TurnBuilder) -> None:
    stream = chunks(says("", "a", "", "b"), plain)

    deltas = [chunk["choices"][0]["delta"] for chunk in stream]

    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "a"},
        {"content": "b"},
        {},
    ]


def test_objects_are_what_the_official_types_say(plain: TurnBuilder) -> None:
    reply = whole(says(calls(F)), plain, tools=TOOLS, metadata={"k": "v"})
    stream = chunks(says(calls(F)), plain, tools=TOOLS)

    ChatCompletion.model_validate(reply, strict=True)
    for chunk in stream:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert reply["metadata"] == {"k": "v"}
    assert set(reply) >= {"id", "object", "created", "model", "system_fingerprint", "usage"}
    assert set(reply["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}


def test_a_text_has_no_tool_calls(plain: TurnBuilder) -> None:
    message = whole(says("Hi"), plain, tools=TOOLS)["choices"][0]["message"]

    assert message == {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}


def test_stop_strings_are_not_looked_for_in_calls_and_thoughts(thinker: TurnBuilder) -> None:
    text = f"<think>\nx</think>\n\n{calls(F)}"

    reply = whole(says(text), thinker, tools=TOOLS, stop=["x", "name"])

    assert told(reply) == (None, "x", [F], "tool_calls")


def test_thoughts_are_told_under_both_names_and_counted(thinker: TurnBuilder) -> None:
    pieces = ("<think>\n", "hm", "m", "</think>", "\n\n", "Yes")

    reply = whole(says(*pieces), thinker)
    stream = chunks(says(*pieces), thinker)

    message = reply["choices"][0]["message"]
    deltas = [chunk["choices"][0]["delta"] for chunk in stream]
    assert message["reasoning"] == message["reasoning_content"] == "hmm"
    assert message["content"] == "Yes"
    assert {"reasoning": "hm", "reasoning_content": "hm"} in deltas
    assert folded(stream) == told(reply)
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


def test_usage_counts_all_choices(plain: TurnBuilder) -> None:
    engine = ScriptedEngine(
        ScriptedReply(["a", "b"]), ScriptedReply(["c"], "length"), cached_tokens=8
    )

    reply = whole(engine, plain, n=2)
    stream = chunks(engine, plain, n=2, stream_options={"include_usage": True})

    usage = reply["usage"]
    assert usage["prompt_tokens"] == len(engine.asked[0][0]) > 0
    assert usage["completion_tokens"] == 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4
    assert usage["prompt_tokens_details"]["cached_tokens"] == 8
    assert (stream[-1]["choices"], stream[-1]["usage"]) == ([], usage)
    assert all(chunk["usage"] is None for chunk in stream[:-1])


def test_a_stream_without_that_wish_has_no_chunk_without_choices(plain: TurnBuilder) -> None:
    assert all(chunk["choices"] for chunk in chunks(says("a"), plain))


def test_each_choice_has_its_own_text_and_end(plain: TurnBuilder) -> None:
    engine = ScriptedEngine(
        ScriptedReply(["a", "b"]), ScriptedReply([calls(G)]), ScriptedReply(["c"], "length")
    )
    expected = [
        ("ab", None, [], "stop"),
        (None, None, [G], "tool_calls"),
        ("c", None, [], "length"),
    ]

    reply = whole(engine, plain, n=3, tools=TOOLS)
    stream = chunks(engine, plain, n=3, tools=TOOLS)

    assert [told(reply, i) for i in range(3)] == expected
    assert [folded(stream, i) for i in range(3)] == expected


def test_every_token_has_its_logprob_streamed_and_whole(plain: TurnBuilder) -> None:
    pieces = list(calls(F))

    reply = whole(says(*pieces), plain, tools=TOOLS, logprobs=True)
    stream = chunks(says(*pieces), plain, tools=TOOLS, logprobs=True)

    content = reply["choices"][0]["logprobs"]["content"]
    streamed = [chunk["choices"][0]["logprobs"] for chunk in stream]
    assert [entry["token"] for entry in content] == pieces
    assert [entry for each in streamed if each for entry in each["content"]] == content
    assert content[0] == {"token": "<", "logprob": -0.5, "bytes": [60], "top_logprobs": []}
