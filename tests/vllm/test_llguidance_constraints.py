"""Constraints of llguidance on the real engine, whose model has random weights."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.random_model import make_random
from support.vllm_engine import Drafting, Heard, broken, drafting_on

from falsework.server.engines.base import ThinkingBudget

Json = dict[str, Any]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

TREE: Json = {
    "type": "object",
    "properties": {
        "number_of_this_node": {"type": "integer", "minimum": 0, "maximum": 99},
        "children_of_this_node": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["number_of_this_node", "children_of_this_node"],
    "additionalProperties": False,
}
PLANT = {"type": "function", "function": {"name": "plant", "parameters": TREE}}
ASKED: Json = {
    "messages": [{"role": "user", "content": "Plant a tree."}],
    "tools": [PLANT],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_tokens": 400,
}
CALL = re.compile(r'<tool_call>\n\{"name": "plant", "arguments": (.*)\}\n</tool_call>', re.DOTALL)


@pytest.fixture(scope="module")
def random_model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(tmp_path_factory.mktemp("random"), smollm2)


@pytest.fixture(scope="module")
def drafting(random_model: Path) -> Iterator[Drafting]:
    with drafting_on(random_model) as made:
        yield made


def hear(drafting: Drafting, *wishes: Json) -> list[Heard]:
    return [heard for (heard,) in drafting.loop.run(drafting.bare.hear_all(list(wishes)))]


def test_every_finished_call_of_a_recursive_schema_satisfies_it(drafting: Drafting) -> None:
    wishes = [{**ASKED, "seed": seed, "temperature": 1.0} for seed in range(12)]

    heard = hear(drafting, *wishes)

    finished = [one for one in heard if one.finish == "stop"]
    assert len(finished) >= 4
    for one in finished:
        called = CALL.fullmatch(one.text)
        assert called, one.text
        jsonschema.validate(json.loads(called[1]), TREE)


def test_forced_text_of_llguidance_is_drafted(drafting: Drafting) -> None:
    (heard,) = hear(drafting, {**ASKED, "seed": 1})

    assert heard.steps < 0.7 * heard.tokens


def test_text_follows_a_recursive_grammar(drafting: Drafting) -> None:
    grammar = 'start: "(" start ")" | NUMBER\nNUMBER: /[0-9]{2}/'
    asked = {"messages": ASKED["messages"], "structured_outputs": {"grammar": grammar}}

    heard = hear(drafting, *({**asked, "seed": seed} for seed in range(4)))

    for one in heard:
        assert one.finish == "length" or re.fullmatch(r"(\(*)[0-9]{2}\)*", one.text)


FAULTS: dict[str, Json] = {
    "no grammar": {"grammar": b"{"},
    "no text": {"grammar": b"\xff"},
    "a prefix that can't be said": {"prefix": (1, 2, 3)},
    "a think block that is none": {"think_block": b"\x01", "think": ThinkingBudget(1, 1, (2,))},
    "a grammar whose every way is barred": {
        "grammar": json.dumps(
            {"grammars": [{"lark_grammar": 'start: "' + "x" * 9 + '" start | a\na: a a | "b"'}]}
        ).encode(),
        "prefix": (),
        "barred": (b"xxxxxxxxx", b"b"),
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_constraint_that_fails_ends_its_own_request_and_nobody_elses(
    drafting: Drafting, fault: str
) -> None:
    beside = {**ASKED, "seed": 3}
    (alone,) = hear(drafting, beside)

    async def both() -> tuple[list[str | None], list[Heard]]:
        turn = await drafting.bare.turn(ASKED)
        assert turn.constraint is not None
        constraint = broken(turn.constraint, **FAULTS[fault])

        async def fail() -> list[str | None]:
            return [piece.finish async for piece in drafting.bare.pieces(turn, constraint)]

        return await asyncio.gather(fail(), drafting.bare.hear(beside))

    ends, (heard,) = drafting.loop.run(both())

    assert ends[-1] == "error"
    assert heard.text == alone.text
