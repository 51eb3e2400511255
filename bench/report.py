"""The results as Markdown: table, environment, transcript."""

import datetime as dt
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from falsework import __version__
from falsework.bench.runner import CaseResult


def table(names: Sequence[str], rows: Sequence[CaseResult]) -> str:
    """Return a row per case: medians per call, and the first server's share of each other's."""
    head = ["case", *(f"{name}, s" for name in names), *(f"share of {n}" for n in names[1:])]
    lines = [_line(head), _line(["---"] * len(head))]
    return "\n".join([*lines, *(_line(_cells(row)) for row in rows), ""])


def _cells(row: CaseResult) -> list[str]:
    goal = f"{_name(row)} (goal: {row.case.goal})"
    medians = [result.median for result in row.results]
    shares = [f"{medians[0] / other:.2f}" for other in medians[1:]]
    return [goal, *(f"{median:.3f}" for median in medians), *shares]


def _name(row: CaseResult) -> str:
    if not row.busy:
        return row.case.name
    beside = "a busy process" if row.busy == 1 else f"{row.busy} busy processes"
    return f"{row.case.name}, beside {beside}"


def steadiness(names: Sequence[str], rows: Sequence[CaseResult]) -> str:
    """Return each server's time beside busy processes over its time without, a row per case."""
    idle = {row.case.name: row for row in rows if not row.busy}
    lines = [_line(["case", *names]), _line(["---"] * (1 + len(names)))]
    for row in rows:
        if row.busy and row.case.name in idle:
            pairs = zip(row.results, idle[row.case.name].results, strict=True)
            shares = (f"{busy.median / alone.median:.2f}" for busy, alone in pairs)
            lines.append(_line([_name(row), *shares]))
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def environment(runs: int) -> str:
    """Return a line with date, machine, versions and number of runs."""
    parts = [
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        _processor(),
        f"{os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        f"Falsework {__version__}",
    ]
    return (
        f"{', '.join(parts)}; medians of {runs} alternating runs, greedy; seconds per call where a "
        "reply holds several."
    )


def transcript(names: Sequence[str], rows: Sequence[CaseResult]) -> str:
    """Return the replies to each case, so that unequal work can be seen."""
    lines: list[str] = []
    for row in rows:
        lines += [f"- {_name(row)}"]
        lines += [
            f"    - {name}: {result.text[:200]}"
            for name, result in zip(names, row.results, strict=True)
        ]
    return "\n".join([*lines, ""])


def _processor() -> str:
    """Return the processor's name where the system has it, otherwise its architecture."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
