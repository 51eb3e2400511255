"""Conditions and templates in the tools file: JMESPath, and `{argument}`."""

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator


def _check(expression: str) -> str:
    try:
        jmespath.compile(expression)
    except JMESPathError as fault:
        raise ValueError(f"isn't a JMESPath expression: {fault}") from fault
    return expression


Condition = Annotated[str, AfterValidator(_check)]


def evaluate(condition: str, **known: Any) -> bool | None:
    """Tell whether a condition is true of what is known; None where it is neither true nor false.

    It isn't where something is missing, or where things of two kinds are compared.
    """
    try:
        said = jmespath.search(condition, known)
    except (JMESPathError, TypeError):
        return None
    return said if isinstance(said, bool) else None


def placeholders(template: Any) -> Iterator[str]:
    """Yield the names that a template's `{name}` stand for; raise ValueError."""
    if isinstance(template, Mapping):
        template = [*template.values()]
    if isinstance(template, list):
        for each in template:
            yield from placeholders(each)
    if isinstance(template, str):
        yield from (name for _, name, _, _ in Formatter().parse(template) if name is not None)


def render_template(template: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a template with its `{name}` placeholders filled from the arguments.

    A string that is one placeholder becomes the argument itself, whatever its type. Raises KeyError
    with the name of an argument that isn't there.
    """
    if isinstance(template, Mapping):
        return {key: render_template(value, arguments) for key, value in template.items()}
    if isinstance(template, list):
        return [render_template(each, arguments) for each in template]
    if not isinstance(template, str):
        return template
    if template.startswith("{") and template.endswith("}") and template[1:-1].isidentifier():
        return arguments[template[1:-1]]
    return template.format_map(arguments)
