"""A race between endpoints that run already, told as it goes."""

import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from falsework.bench.cases import CASES
from falsework.bench.endpoint import Endpoint
from falsework.bench.report import environment, table
from falsework.bench.runner import run_alternating


async def print_table(
    urls: Sequence[str], runs: int, only: str, key: str, tell: Callable[[str], None]
) -> None:
    """Tell a row per case; raise Unanswered when an endpoint refuses one or isn't there."""
    cases = [case for case in CASES if re.search(only, case.name)]
    async with AsyncExitStack() as stack:
        endpoints = [
            await stack.enter_async_context(Endpoint(url, url, key)) for url in dict.fromkeys(urls)
        ]
        for one in endpoints:
            await one.connect()
        tell(environment(runs) + "\n")
        head = 0
        async for row in run_alternating(endpoints, cases, runs):
            tell("\n".join(table([one.name for one in endpoints], [row]).splitlines()[head:]))
            head = 2
