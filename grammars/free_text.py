"""Free text: any UTF-8, but for markers that it may not hold."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from falsework.grammars.expressions import (
    NFA,
    Expression,
    Fragment,
    bounded,
    compile_regex,
    literal,
    sequence,
)

WRITTEN_OUT = 128
"""Up to how many characters the length of a raw string is counted state by state."""

# UTF-8 (RFC 3629, section 4): state -> [(lowest byte, highest byte, next state)]. State 0 stands
# between characters; 1 to 3 wait for that many free continuation bytes, the rest for a bounded one.
_UTF8 = {
    0: [
        (0x00, 0x7F, 0),
        (0xC2, 0xDF, 1),
        (0xE0, 0xE0, 4),
        (0xE1, 0xEC, 2),
        (0xED, 0xED, 5),
        (0xEE, 0xEF, 2),
        (0xF0, 0xF0, 6),
        (0xF1, 0xF3, 3),
        (0xF4, 0xF4, 7),
    ],
    1: [(0x80, 0xBF, 0)],
    2: [(0x80, 0xBF, 1)],
    3: [(0x80, 0xBF, 2)],
    4: [(0xA0, 0xBF, 1)],
    5: [(0x80, 0x9F, 1)],
    6: [(0x90, 0xBF, 2)],
    7: [(0x80, 0x8F, 2)],
}

_DEAD = -1


@dataclass(frozen=True)
class _State:
    """Where a text stands: the part of a marker at its end, and what is known of the rest.

    `partial` is the UTF-8 state; `count` the characters before `matched`; `unlike` the state of
    the automaton of what the text may not be, _DEAD where it can't become that any more.
    """

    matched: bytes = b""
    partial: int = 0
    begun: bool = False
    count: int = 0
    unlike: int = _DEAD


@dataclass(frozen=True)
class _Text:
    """A text: the marker that ends it (empty: none), those it may not hold, what else is asked.

    `barred` are ASCII characters that it can't begin with; `low` and `high` bound its code points;
    `unlike` is a regex that it may not match as a whole.
    """

    until: str = ""
    without: tuple[str, ...] = ()
    barred: str = ""
    nonempty: bool = False
    low: int = 0
    high: int | None = None
    unlike: str = ""
    markers: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Note all markers as bytes."""
        named = [marker.encode() for marker in (self.until, *self.without) if marker]
        object.__setattr__(self, "markers", tuple(dict.fromkeys(named)))


def text_until_marker(marker: str, barred: str = "", without: Sequence[str] = ()) -> Expression:
    """Say text up to and with the first `marker`, with no marker of `without` before it.

    `barred` are ASCII characters that the text may not begin with.
    """
    return _embedded(_Text(marker, tuple(without), barred))


def text_without_marker(marker: str, barred: str = "", without: Sequence[str] = ()) -> Expression:
    """Say text of at least one character that holds neither `marker` nor any of `without`."""
    return _embedded(_Text("", (marker, *without), barred, nonempty=True))


def raw_string(marker: str, low: int = 0, high: int | None = None, unlike: str = "") -> Expression:
    """Say a string of `low` to `high` code points as it is, and the `marker` that ends it.

    `unlike` is a regex that the string doesn't match. A string whose length has a bound beyond
    WRITTEN_OUT doesn't hold the first character of the marker.
    """
    if max(low, high or 0) <= WRITTEN_OUT:
        return _embedded(_Text(marker, low=low, high=high, unlike=unlike))
    character = compile_regex(rf"[^\x{{{ord(marker[0]):x}}}]")
    return sequence(bounded(character, low, high, marker[0].encode()), literal(marker[1:]))


def _embedded(text: _Text) -> Expression:
    leaf = _leaf(text)

    def add(net: NFA, start: int) -> int:
        return net.embed(start, leaf)

    return add


@functools.lru_cache(maxsize=256)
def _leaf(text: _Text) -> Fragment:
    """Make the product of the markers' search automaton (Aho, Corasick) with UTF-8 and the rest."""
    unlike = _Unlike(text)
    # Where nothing hangs on the first character, the start is the state of every later one too.
    begin = _State(begun=not (text.nonempty or text.barred), unlike=unlike.start)
    numbers: dict[_State | None, int] = {begin: 0}
    queue: list[_State] = [begin]
    edges: list[tuple[int, int, int, int]] = []
    for state in queue:
        for low, high, following in _following(state, text, unlike):
            if following not in numbers:
                numbers[following] = len(numbers)
                if following is not None:
                    queue.append(following)
            edges.append((numbers[state], low, high, numbers[following]))
    found = numbers.get(None)
    whole = [number for state, number in numbers.items() if state and _is_whole(state)]
    return Fragment(len(numbers), _joined(edges), whole if not text.until else [found or 0])


def _is_whole(state: _State) -> bool:
    return state.partial == 0 and state.begun


def _following(
    state: _State, text: _Text, unlike: "_Unlike"
) -> Iterator[tuple[int, int, _State | None]]:
    """Yield (lowest byte, highest byte, next state) of a state; None: the ending marker."""
    for low, high, partial in _UTF8[state.partial]:
        for first, last in unlike.told_apart(low, high):
            if not state.begun and state.partial == 0 and chr(first) in text.barred:
                continue
            step = _searched(text.until.encode(), text.markers, state.matched, first)
            if step is None:
                continue
            released, matched = step
            count, alike = _counted(state, released, text), unlike.step(state.unlike, released)
            if count is None:
                continue
            if matched is not None:
                yield (
                    first,
                    last,
                    _State(matched, partial, state.begun or partial == 0, count, alike),
                )
            elif count >= text.low and not unlike.accepts(alike):
                yield first, last, None


@functools.lru_cache(maxsize=65536)
def _searched(
    until: bytes, markers: tuple[bytes, ...], matched: bytes, byte: int
) -> tuple[bytes, bytes | None] | None:
    """Return (bytes that are text for certain, part of a marker at the end) behind one more byte.

    The part is None where `until` is complete; the whole is None where another marker is.
    """
    seen = matched + bytes([byte])
    if until and seen.endswith(until):
        return seen[: len(seen) - len(until)], None
    if any(seen.endswith(marker) for marker in markers):
        return None
    kept = next(
        n
        for n in range(len(seen), -1, -1)
        if n == 0 or any(marker.startswith(seen[len(seen) - n :]) for marker in markers)
    )
    return seen[: len(seen) - kept], seen[len(seen) - kept :]


def _counted(state: _State, released: bytes, text: _Text) -> int | None:
    """Return the characters said for certain, as far as the bounds ask; None: too many."""
    if not text.low and text.high is None:
        return 0
    count = state.count + sum((byte & 0xC0) != 0x80 for byte in released)  # noqa: PLR2004
    if text.high is None:
        return min(count, text.low)
    return count if count <= text.high else None


class _Unlike:
    """The automaton of a regex, as far as a raw string has to stay out of it."""

    def __init__(self, text: _Text) -> None:
        fragment = compile_regex(text.unlike) if text.unlike else Fragment(0, [], [])
        self.start = 0 if text.unlike else _DEAD
        alone = {*b"".join(text.markers), *text.barred.encode()}
        self._cuts = {cut for byte in alone for cut in (byte, byte + 1)}
        self._cuts |= {cut for _, low, high, _ in fragment.edges for cut in (low, high + 1)}
        self._finals = set(fragment.finals)
        self._ways: dict[int, list[tuple[int, int, int]]] = {}
        for source, low, high, target in fragment.edges:
            self._ways.setdefault(source, []).append((low, high, target))
        self._ranges: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def told_apart(self, low: int, high: int) -> list[tuple[int, int]]:
        """Cut a range of bytes where markers, barred characters or the regex tell them apart."""
        if (low, high) not in self._ranges:
            cuts = sorted({low, high + 1} | {cut for cut in self._cuts if low < cut <= high})
            behind = [cut - 1 for cut in cuts[1:]]
            self._ranges[low, high] = list(zip(cuts[:-1], behind, strict=True))
        return self._ranges[low, high]

    def accepts(self, state: int) -> bool:
        """Tell whether the regex matches what led to this state."""
        return state in self._finals

    def step(self, state: int, released: bytes) -> int:
        """Return the state behind some bytes."""
        for byte in released:
            ways = self._ways.get(state, [])
            state = next((to for low, high, to in ways if low <= byte <= high), _DEAD)
        return state


def _joined(edges: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join edges with neighbouring bytes, one source and one target."""
    joined: list[tuple[int, int, int, int]] = []
    for source, low, high, target in sorted(edges):
        if joined and (joined[-1][0], joined[-1][2], joined[-1][3]) == (source, low - 1, target):
            joined[-1] = (source, joined[-1][1], high, target)
        else:
            joined.append((source, low, high, target))
    return joined
