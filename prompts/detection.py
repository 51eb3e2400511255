"""Which dialect a model speaks, by its own chat template and vocabulary."""

import json
from collections.abc import Iterator
from typing import Any

import jinja2

from falsework.grammars.events import Call
from falsework.prompts.chat_template import ChatTemplate
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import Tokenizer

_PROBE = Call("probe_function", '{"probe": "value"}')


class UnknownDialect(ValueError):
    """There is no dialect of this name."""


def detect_renderer(tokenizer: Tokenizer, named: str = "auto") -> PromptRenderer:
    """Return the prompter for a model; `named` overrides the dialect that its template shows."""
    if named not in {"auto", *DIALECTS}:
        msg = f"unknown dialect '{named}'; there is: auto, {', '.join(sorted(DIALECTS))}"
        raise UnknownDialect(msg)
    knows_tools = _mentions_tools(tokenizer)
    shown = _shown(tokenizer)
    dialect = DIALECTS[named] if named != "auto" else shown or DIALECTS["scaffold"]
    if _thinks(tokenizer):
        dialect = with_reasoning(dialect)
    # A section of the template that teaches another spelling than the dialect's would mislead.
    taught = knows_tools and shown is not None and shown.name == dialect.name
    return PromptRenderer(tokenizer, dialect, taught)


def _mentions_tools(tokenizer: Tokenizer) -> bool:
    """Tell whether the template reads the variable `tools`."""
    return "tools" in ChatTemplate(tokenizer).variables


def _shown(tokenizer: Tokenizer) -> Dialect | None:
    """Return the dialect in which the template itself writes a past call."""
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    texts = list(_probes(tokenizer))
    for dialect in DIALECTS.values():
        written = dialect.markup.render([_PROBE])
        has_tokens = all(marker in vocabulary for marker in dialect.needs)
        if has_tokens and any(written in text for text in texts):
            return dialect
    return None


def _probes(tokenizer: Tokenizer) -> Iterator[str]:
    """Render a conversation with a past call; templates differ in how they want the arguments."""
    for arguments in (json.loads(_PROBE.arguments), _PROBE.arguments):
        function: dict[str, Any] = {"name": _PROBE.name, "arguments": arguments}
        call = {"type": "function", "id": "call000000", "function": function}
        for content in ("", None):
            messages: list[dict[str, Any]] = [
                {"role": "user", "content": "probe"},
                {"role": "assistant", "content": content, "tool_calls": [call]},
            ]
            try:
                yield str(tokenizer.apply_chat_template(messages, tokenize=False))
            except (jinja2.TemplateError, TypeError, KeyError, ValueError):
                continue  # this template wants its calls in another shape


def _thinks(tokenizer: Tokenizer) -> bool:
    """Tell whether the model has think blocks: the marker is one token of its vocabulary."""
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    return "<think>" in vocabulary and "</think>" in vocabulary
