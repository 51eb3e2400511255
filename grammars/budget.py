"""A limit on the work that one schema may cause, checked inside every loop that may grow."""

import time

from falsework.grammars.expressions import GrammarTooLarge

_STEPS_BETWEEN_CLOCKS = 256


class BudgetExceeded(GrammarTooLarge):
    """The work takes longer or more steps than allowed."""


class Budget:
    """Counts steps; raises BudgetExceeded behind the last one or when the time is over."""

    def __init__(self, seconds: float = 2.0, steps: int = 2_000_000) -> None:
        """Begin now; `seconds` are of this thread's processor time."""
        self._deadline = time.thread_time() + seconds
        self._seconds = seconds
        self._steps = steps
        self.spent = 0
        self._unclocked = 0

    def spend(self, steps: int = 1) -> None:
        """Count steps that are about to be done."""
        self.spent += steps
        self._unclocked += steps
        if self.spent > self._steps:
            msg = "its schema takes too many steps to compile"
            raise BudgetExceeded(msg)
        if self._unclocked >= _STEPS_BETWEEN_CLOCKS:
            self._unclocked = 0
            if time.thread_time() > self._deadline:
                msg = f"its schema takes more than {self._seconds:g} s to compile"
                raise BudgetExceeded(msg)
