"""Gain and cost of prompt-lookup drafts: Falsework with and without them, in alternation.

    python bench/likely.py [--model FOLDER] [--runs 7]

A call that copies an id and a date from the question, one that has nothing to copy, free text, and
sixteen clients at once.
"""

import argparse
import contextlib
from collections.abc import Sequence

import anyio
from against_vllm import commands, running

from falsework.bench.cases import CASES, Case, tool
from falsework.bench.endpoint import Endpoint
from falsework.bench.report import table, transcript
from falsework.bench.runner import run_alternating
from falsework.server.models import resolve_model

LONG = {"type": "string", "maxLength": 40}
CANCEL = tool("cancel_order", "Cancel an order.", order_id=LONG, date=LONG)


def cancel_case(name: str, text: str) -> Case:
    """Return a case of one required call of cancel_order."""
    request = {
        "messages": [{"role": "user", "content": text}],
        "tools": [CANCEL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "max_tokens": 256,
    }
    return Case(name, 1, request)


COPYING = cancel_case(
    "an id and a date that stand in the question",
    "Cancel order_id 7f3c2a90-5b1e-4d7a-9c44-e1a2b3c4d5e6, date 2026-11-24T09:30:00Z.",
)
INVENTING = cancel_case("nothing to copy", "Cancel some order of yours on some day.")
TOGETHER = [case for case in CASES if case.crowd or case.name.startswith("free text")]


async def measured(endpoints: Sequence[Endpoint], runs: int) -> None:
    """Print a row per case."""
    async with contextlib.AsyncExitStack() as stack:
        for endpoint in endpoints:
            await stack.enter_async_context(endpoint)
            await endpoint.connect(patience=600)
        rows = [
            row async for row in run_alternating(endpoints, [COPYING, INVENTING, *TOGETHER], runs)
        ]
    names = [endpoint.name for endpoint in endpoints]
    print(table(names, rows), transcript(names, rows), sep="\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    command = commands(str(options.model or resolve_model("smollm2", print)))["Falsework"]
    kinds = {"with likely drafts": command, "without": [*command, "--no-copy-drafts"]}
    with contextlib.ExitStack() as stack:
        endpoints = [stack.enter_context(running(*kind)) for kind in kinds.items()]
        anyio.run(measured, endpoints, options.runs)


if __name__ == "__main__":
    main()
