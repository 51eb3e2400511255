"""The families by name, gathered from the modules of `prompts/families`."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace

from falsework.grammars.call_formats import ReasoningTags
from falsework.prompts import families
from falsework.prompts.dialect import Dialect, PastCalls

__all__ = ["DIALECTS", "SCAFFOLD", "Dialect", "PastCalls", "with_reasoning"]


def _defined() -> Iterator[Dialect]:
    """Yield the dialects that the modules of `prompts/families` define."""
    for module in pkgutil.iter_modules(families.__path__):
        found = importlib.import_module(f"{families.__name__}.{module.name}")
        yield from (value for value in vars(found).values() if isinstance(value, Dialect))


DIALECTS = {dialect.name: dialect for dialect in _defined()}
SCAFFOLD = DIALECTS["scaffold"]
"""For chat templates that know no tools: our own section, calls as Hermes spells them."""


def with_reasoning(dialect: Dialect) -> Dialect:
    """Return the dialect for a model that thinks before it answers."""
    return (
        dialect if dialect.think else replace(dialect, think=dialect.reasoning or ReasoningTags())
    )
