"""A model that wants to say anything gets nothing wrong, asked in every way that there is."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from support.json_schema import faults
from support.openai_sdk import calls_of, fold
from support.random_model import make_random
from support.random_requests import KINDS, Wish, schema_of, wishes
from support.server_process import Server, serving

pytestmark = pytest.mark.timeout(900)

AT_ONCE = 8


@dataclass(frozen=True)
class Reply:
    """A reply, streamed or not, as far as both must agree."""

    text: str
    calls: tuple[tuple[str, str], ...]
    finish: str | None


@dataclass(frozen=True)
class Exchange:
    """A wish, and what came of it both ways; a refusal or an error of the server fails the test."""

    wish: Wish
    whole: Reply
    streamed: Reply

    @property
    def replies(self) -> tuple[Reply, Reply]:
        return self.whole, self.streamed


@pytest.fixture(scope="module")
def random_server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("random")
    model = make_random(folder, smollm2)
    # In bfloat16 a logit moves by up to 0.03 with what shares its step, which turns near draws.
    exactly = ("--dtype", "float32", "--kv-cache-gib", "0.25")
    with serving(model, folder / "log.txt", *exactly) as running:
        yield running


@pytest.fixture(scope="module")
def exchanges(random_server: Server) -> list[Exchange]:
    return asyncio.run(exchanged(random_server))


async def exchanged(server: Server) -> list[Exchange]:
    seats = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=300
    ) as client:
        (model,) = [model.id async for model in client.models.list()]

        async def both(wish: Wish) -> Exchange:
            async with seats:
                fields = {"model": model, **wish.fields}
                return Exchange(wish, await whole(client, fields), await streamed(client, fields))

        return await asyncio.gather(*(both(wish) for wish in wishes()))


async def whole(client: AsyncOpenAI, fields: dict) -> Reply:
    reply = await client.chat.completions.create(**fields)
    calls = tuple((call.function.name, call.function.arguments) for call in calls_of(reply))
    (choice,) = reply.choices
    return Reply(choice.message.content or "", calls, choice.finish_reason)


async def streamed(client: AsyncOpenAI, fields: dict) -> Reply:
    chunks = await client.chat.completions.create(**fields, stream=True)
    folded = fold([chunk async for chunk in chunks])
    calls = tuple((name, arguments) for name, arguments in folded.calls)
    return Reply(folded.text, calls, folded.finish)


def replies(exchanges: list[Exchange]) -> Iterator[tuple[Wish, Reply]]:
    for exchange in exchanges:
        for reply in exchange.replies:
            yield exchange.wish, reply


def test_hundreds_of_requests_are_answered_and_there_is_something_to_check(
    exchanges: list[Exchange],
) -> None:
    answers = list(replies(exchanges))
    calls = sum(len(reply.calls) for _, reply in answers)
    cut = sum(reply.finish == "length" for _, reply in answers)
    names = {name for _, reply in answers for name, _ in reply.calls}

    print(f"{len(answers)} requests, {calls} calls of {len(names)} tools, {cut} cut")  # noqa: T201

    assert len(answers) >= 300
    assert calls > 150
    assert 50 < cut < len(answers) - 50
    assert len(names) > 10
    for kind in KINDS[1:]:
        assert any(reply.calls for wish, reply in answers if wish.kind == kind), kind


def test_every_call_names_an_offered_tool_that_may_be_called(exchanges: list[Exchange]) -> None:
    for wish, reply in replies(exchanges):
        assert {name for name, _ in reply.calls} <= wish.callable, wish


def test_all_arguments_satisfy_their_tools_schema(exchanges: list[Exchange]) -> None:
    for _, reply in replies(exchanges):
        for name, arguments in reply.calls:
            assert faults(json.loads(arguments), schema_of(name)) == [], (name, arguments)


def test_none_never_calls(exchanges: list[Exchange]) -> None:
    for wish, reply in replies(exchanges):
        assert wish.kind != "none" or not reply.calls


def test_whoever_must_call_calls_unless_the_token_limit_comes_first(
    exchanges: list[Exchange],
) -> None:
    for wish, reply in replies(exchanges):
        if wish.must_call:
            assert reply.calls or reply.finish == "length", wish
            assert reply.text == "", "a call cut short is no answer either"


def test_without_parallel_calls_there_is_at_most_one(exchanges: list[Exchange]) -> None:
    several = [wish for wish, reply in replies(exchanges) if len(reply.calls) > 1]

    assert several, "some reply should have several calls"
    assert not any(wish.alone for wish in several)


def test_the_end_says_whether_there_were_calls(exchanges: list[Exchange]) -> None:
    for wish, reply in replies(exchanges):
        after_calls = "stop" if wish.kind == "named" else "tool_calls"
        expected = after_calls if reply.calls else "stop"

        assert reply.finish in {expected, "length"}, wish


def test_no_answer_shows_how_calls_are_spelled(exchanges: list[Exchange]) -> None:
    for wish, reply in replies(exchanges):
        assert "<tool_call>" not in reply.text, wish


def test_the_same_seed_says_the_same_streamed_and_not(exchanges: list[Exchange]) -> None:
    differing = [each for each in exchanges if each.whole != each.streamed]

    assert differing == []
