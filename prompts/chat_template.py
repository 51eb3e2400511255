"""A model's chat template: what it reads, and the text that it makes of a conversation."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from falsework.prompts.errors import ChatTemplateError, UnusableModel
from falsework.prompts.tokenizers import Tokenizer

Turn = dict[str, Any]
"""A message as chat templates want it: `role`, `content`, `tool_calls`, …"""

RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
"""What a template raises where it refuses a conversation, or wasn't made for it."""

_CONVERSATION = frozenset(
    {
        "messages",
        "system_message",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "tools",
        "available_tools",
        "builtin_tools",
        "custom_tools",
        "functions",
        "datetime",
        "tool_choice",
        "response_format",
        "response_schema",
        "raise_exception",
        "strftime_now",
    }
)
"""Variables that say what the conversation is; the rest are switches."""

FUNCTIONS, DATE = "functions", "datetime"
"""Variables that templates read as texts: the tools as JSON, and the day."""


class ChatTemplate:
    """The chat template of one model, or `source` in its place."""

    def __init__(self, tokenizer: Tokenizer, source: str = "") -> None:
        """Raise UnusableModel where there is no template, or none that can be read."""
        self._tokenizer = tokenizer
        self._given = source
        try:
            self.source = source or tokenizer.get_chat_template(tools=[{}])
            self._tree = _environment(self.source).parse(self.source)
        except (ValueError, NotImplementedError) as error:
            msg = "The model has no chat template; give one with --chat-template FILE."
            raise UnusableModel(msg) from error
        except jinja2.TemplateSyntaxError as error:
            msg = f"The model's chat template can't be read: {error} (line {error.lineno})."
            raise UnusableModel(msg) from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names that the template looks up when it is rendered."""
        names = jinja2.meta.find_undeclared_variables(self._tree)
        return frozenset(names - _environment(self.source).globals.keys())

    @cached_property
    def switches(self) -> frozenset[str]:
        """Variables that a request may set: neither the conversation nor the template's own.

        A variable that the template sets itself is one where it asks whether it is defined.
        """
        names = list(self._tree.find_all(nodes.Name))
        stored = {name.name for name in names if name.ctx == "store"} - self._optional()
        parameters = {name.name for name in names if name.ctx == "param"}
        special = {name for name in self.variables if name.endswith("_token")}
        return self.variables - _CONVERSATION - stored - parameters - special

    def _optional(self) -> frozenset[str]:
        """Return the variables that have a default."""
        tests = (t for t in self._tree.find_all(nodes.Test) if t.name in {"defined", "undefined"})
        filters = (f for f in self._tree.find_all(nodes.Filter) if f.name in {"default", "d"})
        asked = (each.node for each in (*tests, *filters))
        return frozenset(node.name for node in asked if isinstance(node, nodes.Name))

    @cached_property
    def _demanded(self) -> frozenset[str]:
        """The variables without which the template can't be rendered."""
        return self.variables - self._optional()

    def mentions(self, name: str) -> bool:
        """Tell whether the template reads a member of this name."""
        return any(form in self.source for form in (f".{name}", f"'{name}'", f'"{name}"'))

    def values_of(self, switch: str) -> tuple[str, ...]:
        """Return the texts with which the template compares a switch, in order."""
        compared = (
            constant.value
            for comparison in self._tree.find_all(nodes.Compare)
            if any(name.name == switch for name in comparison.find_all(nodes.Name))
            for constant in comparison.find_all(nodes.Const)
        )
        return tuple(dict.fromkeys(value for value in compared if isinstance(value, str)))

    def render(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        **switches: Any,
    ) -> str:
        """Return the prompt's text; raise ChatTemplateError with the template's own words."""
        chosen = {"chat_template": self._given} if self._given else {}
        texts = {name: text for name, text in _texts(tools).items() if name in self._demanded}
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(turns),
                tools=tools,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **chosen,
                **(texts | switches),
            )
        except RENDER_ERRORS as error:
            msg = f"The model's chat template refuses this conversation: {error}"
            raise ChatTemplateError(msg) from error
        return text

    def try_render(self, turns: Sequence[Turn], **options: Any) -> str:
        """Return the text of a conversation, "" where the template refuses it."""
        try:
            return self.render(turns, **options)
        except ChatTemplateError:
            return ""


def _texts(tools: Sequence[Mapping[str, Any]] | None) -> Mapping[str, str]:
    """Return the variables that are texts; of the time the day alone, which prompts can share."""
    today = dt.datetime.now(dt.UTC).strftime("%d %b %Y")
    return {FUNCTIONS: json.dumps(list(tools or []), ensure_ascii=False), DATE: today}


def _environment(source: str) -> jinja2.Environment:
    from transformers.utils import chat_template_utils  # noqa: PLC0415 - takes seconds to import

    compiled = chat_template_utils._compile_jinja_template(source)  # noqa: SLF001 - it is kept
    environment: jinja2.Environment = compiled.environment
    return environment
