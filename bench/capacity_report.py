"""The simulations of capacity.py as tables and a figure."""

from pathlib import Path
from typing import NamedTuple

from falsework.bench.capacity import (
    COUNTS,
    LOADS,
    ROUTINGS,
    Chain,
    Cluster,
    Figures,
    Replica,
    most,
)
from falsework.bench.capacity_outage import Outage, outage

SHARE = 0.6
"""Of what replicas can do, in the table by their number."""

CHAINS = 5_000
"""A run is cut short after so many, but not below half a minute."""

MIDDLE = 16
"""Replicas, in the table by load."""

CALLS = 64.0
"""Calls a second of the upstream, from all replicas together."""

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


class Made(NamedTuple):
    """What was simulated, and its tables."""

    by_count: dict[tuple[int, str], Figures]
    by_load: dict[tuple[float, str], Figures]
    outages: dict[int, Outage]
    text: str


def tables(replica: Replica, chain: Chain, seconds: float) -> Made:
    """Run every simulation."""

    def figures(count: int, routing: str, share: float) -> Figures:
        rate = share * count * most(replica, chain)
        cluster = Cluster(count, routing, replica, chain, seed=1)
        return cluster.run(rate, max(30.0, min(seconds, CHAINS / rate)))

    by_count = {
        (count, routing): figures(count, routing, SHARE) for count in COUNTS for routing in ROUTINGS
    }
    by_load = {
        (share, routing): figures(MIDDLE, routing, share) for share in LOADS for routing in ROUTINGS
    }
    outages = {count: outage(count, CALLS) for count in COUNTS}
    text = "\n".join(
        [
            "| replicas | routing | p50 of a chain | p99 | cache hits | cost of 1,000 calls |",
            "|---|---|---|---|---|---|",
            *(f"| {count} | {routing} | {_row(of)} |" for (count, routing), of in by_count.items()),
            "",
            "| load | routing | p50 of a chain | p99 | cache hits | cost of 1,000 calls |",
            "|---|---|---|---|---|---|",
            *(
                f"| {share:.0%} | {routing} | {_row(of)} |"
                for (share, routing), of in by_load.items()
            ),
            "",
            "| replicas | attempts a call while it is down | breakers not closed | recovery |",
            "|---|---|---|---|",
            *(
                f"| {count} | {of.reached:.2f} | {of.open_share:.0%} | {of.recovery:.0f} s |"
                for count, of in outages.items()
            ),
            "",
        ]
    )
    return Made(by_count, by_load, outages, text)


def _row(of: Figures) -> str:
    return f"{of.p50:.1f} s | {of.p99:.1f} s | {of.hits:.0%} | {of.cost:.3f}"


def write(made: Made, page: Path) -> None:
    """Put the tables into a page, between two comments, and the figure beside it."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{made.text}\n{END}{rest.partition(END)[2]}")
    draw(made, page.with_suffix(".svg"))


def draw(made: Made, path: Path) -> None:
    """Draw the time of a chain by load, cache hits by replicas, and the upstream's fate."""
    import matplotlib as mpl  # noqa: PLC0415 - only a report needs it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "falsework"
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only a report needs it

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8))
    for routing in ROUTINGS:
        left.plot(LOADS, [made.by_load[share, routing].p99 for share in LOADS], "o-", label=routing)
        hits = [made.by_count[count, routing].hits for count in COUNTS]
        middle.plot(COUNTS, hits, "o-", label=routing)
    right.plot(COUNTS, [made.outages[count].reached for count in COUNTS], "o-")
    left.set(title=f"p99 of a chain, {MIDDLE} replicas", xlabel="load", ylabel="seconds")
    left.set_yscale("log")
    middle.set(title="prefix tokens found in the cache", xlabel="replicas", ylim=(0, 1.05))
    right.set(
        title="attempts a call at an upstream that is down", xlabel="replicas", ylim=(0, None)
    )
    for axes in (middle, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(COUNTS, map(str, COUNTS))
    left.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
