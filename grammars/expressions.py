"""What may be said, put together from small parts: literals, choices, repetitions, regular leaves.

An expression is a function that adds itself to a `Net` behind a given node and returns the node
where it ends. So parts are shared by calling one function twice, loops are jumps, and nothing is
ever written out as one large regex.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from outlines_core import Index, Vocabulary

from falsework.grammars.int_rows import IntRows

NODE_LIMIT = 300_000
LARGEST_COUNT = 2**31 - 1
"""More rounds than any reply has."""


class GrammarTooLarge(ValueError):
    """The language needs more states than `what` allows."""


class CountedLoop(NamedTuple):
    """A loop whose rounds are counted: its nodes are first..last.

    A round ends at each node of `homes` (one flag a node). `highs` (one a node) are the most rounds
    with which a text may come there; it may leave the loop behind `low` rounds.
    """

    first: int
    last: int
    low: int
    homes: tuple[bool, ...]
    highs: tuple[int, ...]


class NFA:
    """A non-deterministic automaton over bytes while it is being put together.

    `edges` are (source, lowest byte, highest byte, target); `jumps` are (source, target) and
    take no byte. Node 0 is the start.
    """

    def __init__(self, node_limit: int = NODE_LIMIT, *, counting: bool = True) -> None:
        """With `counting`, `counted` notes its bounds instead of writing every round out."""
        self.nodes = 1
        self.edges = IntRows(4)
        self.jumps = IntRows(2)
        self.counters: list[CountedLoop] = []
        self.counting = counting
        self._node_limit = node_limit

    def add_node(self) -> int:
        """Add a node; raise TooLarge when there are too many."""
        return self.add_nodes(1)

    def add_nodes(self, count: int) -> int:
        """Add `count` nodes at once and return the first."""
        first = self.nodes
        self.nodes += count
        if self.nodes > self._node_limit:
            msg = f"it needs more than {self._node_limit} states"
            raise GrammarTooLarge(msg)
        return first

    def literal(self, start: int, text: bytes) -> int:
        """Say exactly `text` behind `start`."""
        if not text:
            return start
        first = self.add_nodes(len(text))
        for offset, byte in enumerate(text):
            self.edges.append((start, byte, byte, first + offset))
            start = first + offset
        return start

    def embed(self, start: int, leaf: "Fragment") -> int:
        """Add a compiled leaf behind `start` and return where it ends."""
        first = self.add_nodes(leaf.nodes + 1)
        end = first + leaf.nodes
        self.jumps.append((start, first))
        self.edges.add_block(leaf.block + first * _ENDS)
        self.jumps += [(first + final, end) for final in leaf.finals]
        return end

    def embed_net(self, start: int, part: "NFA", final: int) -> int:
        """Add a whole other net behind `start` and return where `final` of it lies."""
        first = self.add_nodes(part.nodes)
        self.jumps.append((start, first))
        self.edges.add_block(part.edges.to_numpy() + first * _ENDS)
        self.jumps.add_block(part.jumps.to_numpy() + np.int32(first))
        self.counters += [
            loop._replace(first=loop.first + first, last=loop.last + first)
            for loop in part.counters
        ]
        return first + final


_ENDS = np.array([1, 0, 0, 1], np.int32)
"""Which columns of an edge are nodes."""


Expression = Callable[[NFA, int], int]


class Fragment:
    """A small deterministic automaton over bytes; node 0 is its start."""

    def __init__(
        self, nodes: int, edges: Sequence[tuple[int, int, int, int]], finals: Sequence[int]
    ) -> None:
        self.nodes = nodes
        self.edges = edges
        self.finals = finals

    @classmethod
    def of_table(cls, table: NDArray[np.int32], finals: Sequence[int]) -> "Fragment":
        """Return the leaf of a table (nodes, 256): the node behind each byte, -1 for none."""
        begins = np.ones(table.shape, np.bool_)
        begins[:, 1:] = table[:, 1:] != table[:, :-1]
        source, low = begins.nonzero()
        high = np.append(low[1:], 0) - 1
        high[high < low] = 255  # the last range of a row
        rows = np.stack((source, low, high, table[source, low]), axis=1).astype(np.int32)
        leaf = cls(len(table), (), finals)
        leaf.block = rows[rows[:, 3] >= 0]
        return leaf

    @functools.cached_property
    def block(self) -> NDArray[np.int32]:
        """The edges as rows (source, lowest byte, highest byte, target)."""
        return np.array(self.edges, np.int32).reshape(-1, 4)


def embedded(leaf: Fragment) -> Expression:
    """Exactly what a leaf says."""
    return lambda net, start: net.embed(start, leaf)


def shared(part: Expression) -> Expression:
    """The part; it is put together once, however often it stands in nets."""
    kept: dict[bool, tuple[NFA, int]] = {}

    def add(net: NFA, start: int) -> int:
        made = kept.get(net.counting)
        if made is None:
            alone = NFA(counting=net.counting)
            made = kept[net.counting] = (alone, part(alone, 0))
        return net.embed_net(start, *made)

    return add


def literal(text: str) -> Expression:
    """Exactly this text."""
    spelled = text.encode()
    return lambda net, start: net.literal(start, spelled)


def sequence(*parts: Expression) -> Expression:
    """One part after the other."""

    def add(net: NFA, start: int) -> int:
        for part in parts:
            start = part(net, start)
        return start

    return add


def choice(parts: Iterable[Expression]) -> Expression:
    """Any one of the parts; there must be one at least."""
    parts = tuple(parts)
    assert parts, "a choice needs something to choose from"

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        for part in parts:
            # A part may loop back to its first node: it gets one of its own.
            entry = net.add_node()
            net.jumps.append((start, entry))
            net.jumps.append((part(net, entry), end))
        return end

    return add


def optional(part: Expression) -> Expression:
    """The part, or nothing."""
    return choice([part, sequence()])


def separated(part: Expression, separator: bytes, low: int, high: int | None) -> Expression:
    """`part` from `low` to `high` times (None: without limit), with `separator` between."""

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        if low == 0:
            net.jumps.append((start, end))
        if high == 0:
            return end
        entry = net.add_node()
        net.jumps.append((start, entry))
        for count in range(1, max(low, high or 0, 1) + 1):
            behind = part(net, entry)
            if count >= low:
                net.jumps.append((behind, end))
            if high is None and count >= low:
                net.jumps.append((net.literal(behind, separator), entry))
                break
            if count < max(low, high or 0):
                following = net.add_node()
                net.jumps.append((net.literal(behind, separator), following))
                entry = following
        return end

    return add


def repeated(part: Expression, low: int, high: int | None) -> Expression:
    """`part` from `low` to `high` times, nothing between."""
    return separated(part, b"", low, high)


def bounded(part: "Fragment", low: int, high: int | None, closing: bytes) -> Expression:
    """`part` from `low` to `high` times, then the byte `closing`, which `part` can't begin with."""
    most = LARGEST_COUNT if high is None else min(high, LARGEST_COUNT)

    def loop(net: NFA, start: int) -> int:
        home = net.add_nodes(part.nodes)
        end = net.add_node()
        inside = part.nodes - 1
        homes, highs = (True, *(False,) * inside), (most, *(most - 1,) * inside)
        net.counters.append(CountedLoop(home, home + inside, min(low, most), homes, highs))
        net.jumps += [(start, home), *((home + final, home) for final in part.finals)]
        net.edges.add_block(part.block + home * _ENDS)
        net.edges.append((home, closing[0], closing[0], end))
        return end

    written_out = sequence(
        repeated(lambda net, start: net.embed(start, part), low, high), literal(closing.decode())
    )
    return lambda net, start: (loop if net.counting else written_out)(net, start)


def regex(pattern: str) -> Expression:
    """A regular leaf, compiled to bytes by outlines; only for patterns that we wrote ourselves."""
    return lambda net, start: net.embed(start, compile_regex(pattern))  # compiled when it is said


@functools.lru_cache(maxsize=256)
def _bytes_vocabulary() -> Vocabulary:
    return Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})


@functools.lru_cache(maxsize=256)
def compile_regex(pattern: str) -> Fragment:
    r"""Compile a regex to a leaf over bytes.

    The sentinels \x01 and \x02 around the pattern cure three faults of outlines_core 0.2.14:
    it is leftmost-first (`a|ab` can't say `ab`), it drops the ways on out of a finished match, and
    it builds an unused unanchored half.
    """
    index = Index(rf"\x01(?:{pattern})\x02", _bytes_vocabulary())
    ways = index.get_transitions()
    start = ways[index.get_initial_state()][1]
    numbers = {start: 0}
    queue, edges, finals = [start], [], []
    for state in queue:
        for low, high, target in _ranges(ways.get(state, {})):
            if low == high == 2:  # noqa: PLR2004 - the second sentinel
                finals.append(numbers[state])
                continue
            if target not in numbers:
                numbers[target] = len(numbers)
                queue.append(target)
            edges.append((numbers[state], low, high, numbers[target]))
    return Fragment(len(numbers), edges, finals)


def _ranges(row: dict[int, int]) -> list[tuple[int, int, int]]:
    """Join neighbouring bytes with the same target: (lowest, highest, target)."""
    ranges: list[tuple[int, int, int]] = []
    for byte in sorted(row):
        if byte > 255:  # noqa: PLR2004 - outlines' end token
            continue
        previous = ranges[-1] if ranges else None
        if previous and previous[1] == byte - 1 and previous[2] == row[byte] and byte != 2:  # noqa: PLR2004
            ranges[-1] = (previous[0], byte, row[byte])
        else:
            ranges.append((byte, byte, row[byte]))
    return ranges
