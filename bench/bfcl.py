"""Accuracy of tool calls of a model behind an OpenAI-compatible endpoint: a sample of BFCL.

    python bench/bfcl.py --data FOLDER --base-url http://127.0.0.1:8000/v1 --model NAME

FOLDER is `bfcl_eval/data` of the package bfcl-eval. Greedy, tool_choice auto by default.
A case is right when the calls are those of the possible answers (irrelevance: when there is none);
a call is invalid when it names no offered tool or its arguments break the tool's schema.
"""

import argparse
import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import openai

TYPES = {"dict": "object", "float": "number", "tuple": "array"}
COUNTED = ("right", "called", "cut", "invalid")
CATEGORIES = ("simple_python", "multiple", "parallel", "live_simple", "irrelevance")
SCHEMA_KEYWORDS = frozenset(
    {"type", "properties", "required", "items", "enum", "description", "minItems", "maxItems"}
)

Case = tuple[dict[str, Any], list[dict[str, Any]] | None]


def schema_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return BFCL's parameter description as a JSON Schema."""
    schema = {key: value for key, value in description.items() if key in SCHEMA_KEYWORDS}
    kind = schema.pop("type", "any")
    if kind != "any":
        schema["type"] = TYPES.get(kind, kind)
    if "properties" in schema:
        schema["properties"] = {k: schema_of(v) for k, v in schema["properties"].items()}
    if isinstance(schema.get("items"), Mapping):
        schema["items"] = schema_of(schema["items"])
    return schema


def tools_of(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the case's functions as OpenAI tools; dots in names aren't allowed there."""
    return [
        {
            "type": "function",
            "function": {
                "name": function["name"].replace(".", "_"),
                "description": function["description"],
                "parameters": schema_of(function["parameters"]),
            },
        }
        for function in case["function"]
    ]


def fits(value: Any, accepted: Any) -> bool:
    """Tell whether a value is one of those accepted, as BFCL compares them."""
    if isinstance(value, str):
        return any(isinstance(one, str) and _plain(value) == _plain(one) for one in accepted)
    if isinstance(value, dict):
        return any(isinstance(one, dict) and _members_fit(value, one) for one in accepted)
    if isinstance(value, list):
        return any(
            isinstance(one, list)
            and len(one) == len(value)
            and all(fits(a, [b]) for a, b in zip(value, one, strict=True))
            for one in accepted
        )
    return any(
        value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted
    )


def _members_fit(value: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    wrong = [k for k, v in value.items() if k not in accepted or not fits(v, _listed(accepted[k]))]
    missing = [k for k, v in accepted.items() if k not in value and "" not in _listed(v)]
    return not wrong and not missing


def _listed(accepted: Any) -> Sequence[Any]:
    return accepted if isinstance(accepted, list) else [accepted]


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def right(calls: Sequence[tuple[str, Any]], expected: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the calls are those expected, in any order."""
    left = list(calls)
    for one in expected:
        ((name, accepted),) = one.items()
        found = next(
            (c for c in left if c[0] == name.replace(".", "_") and _members_fit(c[1], accepted)),
            None,
        )
        if found is None:
            return False
        left.remove(found)
    return not left


def sample(data: Path, category: str, count: int, seed: int) -> list[Case]:
    """Return a seeded sample of cases, each with what is expected (None: no call)."""

    def lines(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]

    cases = lines(data / f"BFCL_v4_{category}.json")
    answers_file = data / "possible_answer" / f"BFCL_v4_{category}.json"
    answers = (
        {one["id"]: one["ground_truth"] for one in lines(answers_file)}
        if answers_file.exists()
        else {}
    )
    chosen = random.Random(seed).sample(cases, min(count, len(cases)))
    return [(case, answers.get(case["id"])) for case in chosen]


async def ask(
    client: openai.AsyncOpenAI, options: argparse.Namespace, case: Case
) -> dict[str, Any]:
    """Ask one case and judge the reply."""
    asked, expected = case
    tools = tools_of(asked)
    try:
        reply = await client.chat.completions.create(
            model=options.model,
            messages=asked["question"][0],
            tools=tools,
            tool_choice=options.tool_choice,
            temperature=0,
            max_tokens=options.max_tokens,
        )
    except openai.BadRequestError as refused:
        return {"id": asked["id"], "refused": refused.message}
    message = reply.choices[0].message
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls, invalid = [], 0
    for call in message.tool_calls or []:
        try:
            arguments = json.loads(call.function.arguments)
            jsonschema.validate(arguments, schemas[call.function.name])
            calls.append((call.function.name, arguments))
        except (ValueError, KeyError, jsonschema.ValidationError):
            invalid += 1
    good = not (message.tool_calls) if expected is None else right(calls, expected)
    return {
        "id": asked["id"],
        "right": good and not invalid,
        "invalid": invalid,
        "called": bool(message.tool_calls),
        "cut": reply.choices[0].finish_reason == "length",
        "content": message.content,
        "calls": calls,
        "expected": expected,
    }


async def main(options: argparse.Namespace) -> None:
    """Print a line per category."""
    client = openai.AsyncOpenAI(
        base_url=options.base_url, api_key=options.api_key, max_retries=0, timeout=600
    )
    gate = asyncio.Semaphore(options.at_once)

    async def asked(case: Case) -> dict[str, Any]:
        async with gate:
            return await ask(client, options, case)

    for category in options.categories:
        cases = sample(options.data, category, options.count, options.seed)
        judged = await asyncio.gather(*map(asked, cases))
        answered = [one for one in judged if "refused" not in one]
        counts = [f"{what} {sum(one[what] for one in answered)}" for what in COUNTED]
        refused = f"refused {len(judged) - len(answered)}"
        print(f"{category:16} of {len(judged)}:", *counts, refused, sep="  ", flush=True)
        if options.show:
            for one in judged:
                if not one.get("right"):
                    print("   ", json.dumps(one, ensure_ascii=False)[:600])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", required=True)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--tool-choice", default="auto")
    parser.add_argument("--show", action="store_true")
    asyncio.run(main(parser.parse_args()))
