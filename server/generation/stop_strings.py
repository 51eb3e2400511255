"""Stop strings, matched on the answer's text alone and across any cut of it."""

from collections.abc import Sequence

from falsework.grammars.events import Event, Text


class StopStringFilter:
    """Lets events through up to the first stop string, which is left out."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._kept = ""
        self.matched = False
        self.matched_string = ""
        """The stop string that was said."""
        self.matched_tail = ""
        """From the first stop string on, what was said in the same breath."""

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that no stop string can take back any more."""
        let_through: list[Event] = []
        for event in events:
            if isinstance(event, Text):
                let_through += self._text(event.text)
            else:
                let_through += [*self.close(), event]
            if self.matched:
                break
        return let_through

    def close(self) -> list[Event]:
        """Return the text that was kept only because a stop string may have begun in it."""
        kept, self._kept = self._kept, ""
        return _said(kept)

    def _text(self, text: str) -> list[Event]:
        text = self._kept + text
        found = [(at, string) for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            first, self.matched_string = min(found)
            self.matched, self._kept = True, ""
            self.matched_tail = text[first:]
            return _said(text[:first])
        cut = len(text) - max((_overlap(text, string) for string in self._strings), default=0)
        self._kept = text[cut:]
        return _said(text[:cut])


def _said(text: str) -> list[Event]:
    return [Text(text)] if text else []


def _overlap(text: str, string: str) -> int:
    """Return how much of the beginning of `string` the end of `text` is."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)
