"""The tokens of a reply; each protocol spells them its own way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Tokens of prompt (of them `cached`) and completion (of them `reasoning`)."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum of two turns."""
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
        )


NO_USAGE = Usage(0, 0)
