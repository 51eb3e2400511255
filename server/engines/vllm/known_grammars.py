"""The grammars that the engine's process has, as far as the server knows.

A grammar of hundreds of tools has megabytes, and agents offer the same tools in every turn: a
request whose grammar is known carries its key alone. What the process has forgotten since then is
sent again by `VllmEngine.generate`, since the request ends with an error before its first token.
"""

from collections import OrderedDict
from dataclasses import replace

from falsework.server.engines.base import Constraint

MAX_KNOWN = 64
"""How many grammars the engine's process keeps; the server counts with as many."""


class KnownGrammars:
    """Keys of grammars, the one that was used last at the end."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def shortened(self, constraint: Constraint) -> Constraint:
        """Return the constraint without its grammar where that is known, otherwise as it is."""
        if constraint.key not in self._keys:
            return constraint
        self._keys.move_to_end(constraint.key)
        return replace(constraint, grammar=b"")

    def add(self, key: bytes) -> None:
        """Note that the engine has a grammar."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > MAX_KNOWN:
            self._keys.popitem(last=False)

    def discard(self, key: bytes) -> None:
        """Note that the engine doesn't have a grammar."""
        self._keys.pop(key, None)
