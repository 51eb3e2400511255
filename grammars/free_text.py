"""Free text: any UTF-8, but for a marker that it may not hold."""

import functools
from collections.abc import Iterator

from falsework.grammars.expressions import NFA, Expression, Fragment

# UTF-8 (RFC 3629, section 4): state -> [(lowest byte, highest byte, next state)]. State 0 stands
# between characters; 1 to 3 wait for that many free continuation bytes, the rest for a bounded one.
_UTF8 = {
    0: [
        (0x00, 0x7F, 0), (0xC2, 0xDF, 1), (0xE0, 0xE0, 4), (0xE1, 0xEC, 2), (0xED, 0xED, 5),
        (0xEE, 0xEF, 2), (0xF0, 0xF0, 6), (0xF1, 0xF3, 3), (0xF4, 0xF4, 7),
    ],
    1: [(0x80, 0xBF, 0)],
    2: [(0x80, 0xBF, 1)],
    3: [(0x80, 0xBF, 2)],
    4: [(0xA0, 0xBF, 1)],
    5: [(0x80, 0x9F, 1)],
    6: [(0x90, 0xBF, 2)],
    7: [(0x80, 0x8F, 2)],
}  # fmt: skip

_State = tuple[int, int, bool]
"""How much of the marker stands at the end, the UTF-8 state, whether anything was said yet."""


def text_until_marker(marker: str, barred: str = "") -> Expression:
    """Say text up to and with the first `marker`.

    `barred` are ASCII characters that the text may not begin with.
    """
    leaf = _leaf(marker, barred, whole=False)
    return lambda net, start: net.embed(start, leaf)


def text_without_marker(marker: str, barred: str = "") -> Expression:
    """Say text of at least one character that nowhere holds `marker` (empty: anything)."""
    leaf = _leaf(marker, barred, whole=True)

    def add(net: NFA, start: int) -> int:
        return net.embed(start, leaf)

    return add


@functools.lru_cache(maxsize=64)
def _leaf(marker: str, barred: str, *, whole: bool) -> Fragment:
    """Make the product of the marker's search automaton (Knuth, Morris, Pratt) with UTF-8."""
    sought = marker.encode()
    # Where nothing hangs on the first character, the start is the state of every later one too.
    begin: _State = (0, 0, not (whole or barred))
    numbers: dict[_State | None, int] = {begin: 0}
    queue: list[_State] = [begin]
    edges: list[tuple[int, int, int, int]] = []
    for state in queue:
        for byte, following in _ways(state, sought, barred):
            if following is None and whole:
                continue
            if following not in numbers:
                numbers[following] = len(numbers)
                if following is not None:
                    queue.append(following)
            edges.append((numbers[state], byte, byte, numbers[following]))
    found = numbers.get(None)
    ends = [number for state, number in numbers.items() if state and state[1] == 0 and state[2]]
    return Fragment(len(numbers), _joined(edges), ends if whole or found is None else [found])


def _ways(state: _State, sought: bytes, barred: str) -> Iterator[tuple[int, _State | None]]:
    """Yield (byte, next state) of a state; None stands for the marker found."""
    matched, partial, begun = state
    for low, high, following in _UTF8[partial]:
        for byte in range(low, high + 1):
            if not begun and partial == 0 and chr(byte) in barred:
                continue
            length = _matched(sought, matched, byte)
            if sought and length == len(sought):
                yield byte, None
            else:
                yield byte, (length, following, begun or following == 0)


@functools.lru_cache(maxsize=65536)
def _matched(sought: bytes, matched: int, byte: int) -> int:
    """Return how much of the marker stands at the end when `byte` follows `matched` bytes of it."""
    seen = sought[:matched] + bytes([byte])
    longest = min(len(seen), len(sought))
    return next(n for n in range(longest, -1, -1) if seen.endswith(sought[:n]))


def _joined(edges: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join edges with neighbouring bytes, one source and one target."""
    joined: list[tuple[int, int, int, int]] = []
    for source, low, high, target in sorted(edges):
        if joined and (joined[-1][0], joined[-1][2], joined[-1][3]) == (source, low - 1, target):
            joined[-1] = (source, joined[-1][1], high, target)
        else:
            joined.append((source, low, high, target))
    return joined
