"""Times the cases on endpoints that run already, and prints a row after each case."""

import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from falsework.bench.cases import CASES
from falsework.bench.endpoint import Endpoint
from falsework.bench.report import environment, table
from falsework.bench.runner import run_alternating


async def print_table(
    urls: Sequence[str], runs: int, only: str, key: str, echo: Callable[[str], None]
) -> None:
    """Print a row per case; raise EndpointError when one fails."""
    cases = [case for case in CASES if re.search(only, case.name)]
    async with AsyncExitStack() as stack:
        endpoints = [
            await stack.enter_async_context(Endpoint(url, url, key)) for url in dict.fromkeys(urls)
        ]
        for endpoint in endpoints:
            await endpoint.connect()
        echo(environment(runs) + "\n")
        names = [endpoint.name for endpoint in endpoints]
        head = 0
        async for row in run_alternating(endpoints, cases, runs):
            echo("\n".join(table(names, [row]).splitlines()[head:]))
            head = 2
