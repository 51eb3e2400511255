"""Which dialect a model speaks, by its own chat template and vocabulary."""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falsework.grammars.events import Call
from falsework.prompts.chat_template import RENDER_ERRORS, ChatTemplate
from falsework.prompts.dialects import DIALECTS, SCAFFOLD, Dialect, PastCalls
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import Tokenizer

_PROBES = (
    Call("first_probe", '{"probe": "first-value"}'),
    Call("second_probe", '{"probe": "second-value"}'),
)
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": call.name,
            "description": "Probes.",
            "parameters": {
                "type": "object",
                "properties": {"probe": {"type": "string", "description": "A text."}},
                "required": ["probe"],
            },
        },
    }
    for call in _PROBES
]


class UnknownDialect(ValueError):
    """There is no dialect of this name."""


def detect_renderer(tokenizer: Tokenizer, named: str = "auto") -> PromptRenderer:
    """Return the prompt renderer for a model; `named` overrides the dialect of its template."""
    if named not in {"auto", *DIALECTS}:
        msg = f"unknown dialect '{named}'; there is: auto, {', '.join(sorted(DIALECTS))}"
        raise UnknownDialect(msg)
    template = _Template(tokenizer, ChatTemplate(tokenizer))
    shown = template.dialect()
    dialect = DIALECTS[named] if named != "auto" else shown or SCAFFOLD
    if dialect.reasoning and template.thinks(dialect):
        dialect = replace(dialect, think=dialect.reasoning)
    # A section of the template that teaches another spelling than the dialect's would mislead.
    taught = template.reads_tools and shown is not None and shown.name == dialect.name
    if taught or shown is dialect or named == "auto":
        dialect = template.with_past_calls(dialect)
    return PromptRenderer(tokenizer, dialect, taught)


@dataclass(frozen=True)
class _Template:
    """A chat template as far as it shows a family."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate

    @property
    def source(self) -> str:
        """The template's text."""
        return self.chat_template.source

    @property
    def reads_tools(self) -> bool:
        """Tell whether the template reads the variable `tools`."""
        return "tools" in self.chat_template.variables

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """All tokens, added ones too."""
        pieces: dict[str, int] = self.tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
        return pieces

    def dialect(self) -> Dialect | None:
        """Return the dialect in which the template writes a past call, or whose literals it has.

        Of several it is the one whose calls, or literals, are the longest.
        """
        vocabulary = self.vocabulary
        known = [
            one
            for one in DIALECTS.values()
            if one is not SCAFFOLD and all(marker in vocabulary for marker in one.needs)
        ]
        texts = [text for way in _WAYS for text in self._probed(way, tools=_TOOLS)]
        texts += [text for way in _WAYS for text in self._probed(way, tools=None)]
        written = [(len(call), one) for one in known if (call := _written(one, texts))]
        if written:
            return max(written, key=lambda found: found[0])[1]
        source = self.source
        named = [
            (sum(map(len, one.template_says)), one)
            for one in known
            if one.template_says and all(literal in source for literal in one.template_says)
        ]
        return max(named, key=lambda found: found[0])[1] if named else None

    def thinks(self, dialect: Dialect) -> bool:
        """Tell whether the model has the dialect's think block: template and vocabulary do."""
        assert dialect.reasoning
        opening, closing = dialect.reasoning.opening.rstrip(), dialect.reasoning.closing
        closes = closing.lstrip("<[/").removeprefix("|")
        vocabulary = self.vocabulary
        if opening.startswith("<think") and not {opening, closing} <= vocabulary.keys():
            return False
        return closes in self.source

    def with_past_calls(self, dialect: Dialect) -> Dialect:
        """Return the dialect with the way in which this template takes past calls, if it does.

        The best way is the one whose calls are spelled as the dialect's are.
        """
        calls = _PROBES[:1] if dialect.one_call_a_message else _PROBES
        spelled = dialect.markup.render(calls)
        found = [
            (spelled in text, way)
            for way in _WAYS
            for text in self._probed(way, tools=_TOOLS, counts=(len(calls),))
            if all(_mentions(text, call) for call in calls)
        ]
        if not found:
            return replace(dialect, chat_template="")
        _, way = max(found, key=lambda one: one[0])
        if self._is_malformed(way, dialect):  # ours takes arguments as text
            return replace(dialect, past_calls=_WAYS[0])
        return replace(dialect, past_calls=way, chat_template="")

    def _is_malformed(self, way: PastCalls, dialect: Dialect) -> bool:
        """Tell whether two turns with calls are written in another way than one."""
        if not dialect.chat_template:
            return False
        call = _PROBES[0]
        messages = [_USER, _turn([call], way), _RESULT, _USER, _turn([call], way), _RESULT, _USER]
        try:
            text = self._rendered(messages, None)
        except RENDER_ERRORS:
            return False
        opening, closing = dialect.markup.opening, dialect.markup.closing
        return text.count(opening) != text.count(closing)

    def _probed(self, way: PastCalls, tools: Any, counts: Sequence[int] = (1, 2)) -> Iterator[str]:
        """Render conversations with past calls; templates differ in what they take."""
        for count in counts:
            try:
                yield self._rendered([_USER, _turn(_PROBES[:count], way)], tools)
            except RENDER_ERRORS:
                continue

    def _rendered(self, messages: list[dict[str, Any]], tools: Any) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        return text


_USER: dict[str, Any] = {"role": "user", "content": "probe"}
_RESULT: dict[str, Any] = {
    "role": "tool",
    "name": _PROBES[0].name,
    "tool_call_id": "call00000",
    "content": "result",
}
# In the order in which they are tried: text keeps arguments as they were said.
_WAYS = tuple(
    PastCalls(as_text=as_text, empty_content=content)
    for as_text in (True, False)
    for content in ("", None)
)


def _turn(calls: Sequence[Call], way: PastCalls) -> dict[str, Any]:
    arguments = [call.arguments if way.as_text else json.loads(call.arguments) for call in calls]
    tool_calls = [
        {
            "type": "function",
            "id": f"call{number:05}",
            "function": {"name": call.name, "arguments": told},
        }
        for number, (call, told) in enumerate(zip(calls, arguments, strict=True))
    ]
    return {"role": "assistant", "content": way.empty_content, "tool_calls": tool_calls}


def _written(dialect: Dialect, texts: Sequence[str]) -> str:
    """Return the longest spelling of calls by the dialect in one of the texts."""
    spelled = [dialect.markup.render(_PROBES[:count]) for count in (2, 1)]
    return next((call for call in spelled if any(call in text for text in texts)), "")


def _mentions(text: str, call: Call) -> bool:
    """Tell whether a call stands in the text, its argument neither lost nor quoted twice."""
    value = json.loads(call.arguments)["probe"]
    return value in text and '\\"probe\\"' not in text
