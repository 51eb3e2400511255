"""A limit on the work that one schema may cause, checked inside every loop that may grow."""

from falsework.grammars.expressions import GrammarTooLarge

DEFAULT_STEPS = 1_000_000
"""About a second."""


class BudgetExceeded(GrammarTooLarge):
    """The work takes more steps than allowed."""


class Budget:
    """Counts steps, whatever the machine's load; raises BudgetExceeded behind the last one."""

    def __init__(self, steps: int = DEFAULT_STEPS) -> None:
        """Allow that many steps."""
        self._steps = steps
        self.spent = 0

    @property
    def left(self) -> int:
        """The steps that are still allowed."""
        return max(0, self._steps - self.spent)

    def spend(self, steps: int = 1) -> None:
        """Count steps that are about to be done."""
        self.spent += steps
        if self.spent > self._steps:
            msg = f"its schema takes more than {self._steps} steps to compile"
            raise BudgetExceeded(msg)
