"""What waits before it is sent: a call until it is complete, blank text until more follows."""

from collections.abc import Sequence

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Text


class CompleteCallBuffer:
    """Lets a call through only once it is complete, so that no half call is ever sent."""

    def __init__(self) -> None:
        self._call: list[Event] = []

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that may be sent now, in their order."""
        return [ready for event in events for ready in self._hear(event)]

    def _hear(self, event: Event) -> list[Event]:
        if not isinstance(event, CallBegins | Arguments | CallEnds):
            return [event]
        self._call.append(event)
        if not isinstance(event, CallEnds):
            return []
        call, self._call = self._call, []
        return call


class PassThrough:
    """Lets everything through as it comes."""

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Return the events."""
        return list(events)


class LeadingWhitespaceFilter:
    """Lets blank text at the beginning through only if text follows it, not a call.

    Clients take any text before a call, a line break included, for the answer.
    """

    def __init__(self) -> None:
        self._blank = ""
        self._begun = False

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that may be sent now, in their order."""
        return [ready for event in events for ready in self._hear(event)]

    def close(self) -> list[Event]:
        """Return the blank text that turned out to be all of the answer."""
        blank, self._blank = self._blank, ""
        return [Text(blank)] if blank else []

    def _hear(self, event: Event) -> list[Event]:
        if self._begun:
            return [event]
        if isinstance(event, CallBegins):
            self._begun, self._blank = True, ""
            return [event]
        if not isinstance(event, Text):
            return [event]
        if not event.text.strip():
            self._blank += event.text
            return []
        self._begun = True
        blank, self._blank = self._blank, ""
        return [Text(blank + event.text)]
