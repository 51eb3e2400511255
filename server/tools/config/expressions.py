"""Conditions (JMESPath) and templates (`{argument}`) of the tools file."""

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator


def _check_syntax(expression: str) -> str:
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        raise ValueError(f"isn't a JMESPath expression: {error}") from error
    return expression


Condition = Annotated[str, AfterValidator(_check_syntax)]


def evaluate(condition: str, **values: Any) -> bool | None:
    """Return the boolean that a condition evaluates to; None where it evaluates to another type.

    That happens where a field is missing, or values of different types are compared.
    """
    try:
        result = jmespath.search(condition, values)
    except (JMESPathError, TypeError):
        return None
    return result if isinstance(result, bool) else None


def placeholders(template: Any) -> Iterator[str]:
    """Yield the names of a template's placeholders; raise ValueError where it is malformed."""
    if isinstance(template, Mapping):
        template = [*template.values()]
    if isinstance(template, list):
        for item in template:
            yield from placeholders(item)
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
        return [render_template(item, arguments) for item in template]
    if not isinstance(template, str):
        return template
    if template.startswith("{") and template.endswith("}") and template[1:-1].isidentifier():
        return arguments[template[1:-1]]
    return template.format_map(arguments)
