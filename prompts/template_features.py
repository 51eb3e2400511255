"""What a chat template accepts, learnt once by rendering short conversations."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falsework.grammars.events import Call
from falsework.prompts.chat_template import ChatTemplate, Turn

NINE_CHARACTERS = re.compile(r"[a-zA-Z0-9]{9}")
PROBE_CALL = Call("probe_function", '{"probe": "value"}')
LONG_ID, SHORT_ID = "call_0123456789abcdef", "a1B2c3D4e"
_QUOTED = 'probe "result"'
_BRIDGES = ("", "…")


@dataclass(frozen=True)
class TemplateFeatures:
    """What conversations of one model may look like.

    `system`: it may begin with a system message; `late_system`: others may follow anywhere;
    `neighbours`: messages of one role may follow each other; `assistant_first`: it may begin with
    the assistant; `bridge`: what an assistant has to say between a tool result and a user's message
    (None: nothing); `short_ids`: ids of calls have nine letters and digits; `tools_as_list`: no
    tools are an empty list; `content_parts`: content is a list of parts; `quotes_results`: a result
    that is text is written as a JSON string; `text_gap`: what stands between text and a call behind
    it; `text_beside_calls` and `reasoning_beside_text`: a message with calls may hold both.
    """

    system: bool = True
    late_system: bool = True
    neighbours: bool = True
    assistant_first: bool = True
    bridge: str | None = None
    short_ids: bool = False
    tools_as_list: bool = False
    content_parts: bool = False
    quotes_results: bool = False
    text_gap: str = ""
    text_beside_calls: bool = True
    reasoning_beside_text: bool = True


@dataclass(frozen=True)
class Probes:
    """Conversations that show what a template accepts.

    `call_turn` and `result_turn` make the turns of a call of `PROBE_CALL` and of its result as the
    model's prompts hold them; `spelled` is how the dialect spells that call.
    """

    template: ChatTemplate
    call_turn: Callable[[str, str, str], Turn]
    result_turn: Callable[[str, str], Turn]
    spelled: str
    options: Mapping[str, Any]
    content_parts: bool = False

    def learn(self) -> TemplateFeatures:
        """Return what the template accepts; what it accepts in no form counts as accepted."""
        system = self.accepts([_system("S1"), _user("U1")])
        late = [
            _system("S1"),
            _system("S2"),
            _user("U1"),
            _assistant("A1"),
            _system("S3"),
            _user("U2"),
        ]
        short = not self._calls(LONG_ID) and bool(self._calls(SHORT_ID))
        call_id = SHORT_ID if short else LONG_ID
        return TemplateFeatures(
            system=system,
            late_system=system and self.accepts(late),
            neighbours=self.accepts([_user("U1"), _user("U2")])
            and self.accepts([_user("U1"), _assistant("A1"), _assistant("A2"), _user("U2")]),
            assistant_first=self.accepts([_assistant("A1"), _user("U1")]),
            bridge=self._bridge(call_id),
            short_ids=short,
            quotes_results=self._quotes_results(call_id),
            text_gap=self._text_gap(call_id),
            text_beside_calls=self._keeps_calls(call_id, "T1", ""),
            reasoning_beside_text=self._keeps_calls(call_id, "T1", "R1"),
        )

    def accepts(self, turns: Sequence[Turn]) -> bool:
        """Tell whether a conversation is rendered with all of its texts."""
        rendered = self._text(turns)
        return all(turn["content"] in rendered for turn in turns)

    def _text(self, turns: Sequence[Turn]) -> str:
        turns = [as_parts(turn) for turn in turns] if self.content_parts else turns
        return self.template.try_render(turns, **self.options)

    def _calls(self, call_id: str, *more: Turn, result: str = "X1") -> str:
        """Render a call and its result, and turns behind them."""
        turns = [_user("U1"), self.call_turn(call_id, "", ""), self.result_turn(call_id, result)]
        return self._text([*turns, *more])

    def _bridge(self, call_id: str) -> str | None:
        """Return what has to stand between a result and a user's message."""
        if not self._calls(call_id) or "U2" in self._calls(call_id, _user("U2")):
            return None
        for bridge in _BRIDGES:
            if "U2" in self._calls(call_id, _assistant(bridge), _user("U2")):
                return bridge
        return None

    def _quotes_results(self, call_id: str) -> bool:
        """Tell whether a result that is text stands in its turn as a JSON string, and alone."""
        rendered = self._calls(call_id, result=_QUOTED)
        before, quoted, behind = rendered.partition(json.dumps(_QUOTED))
        return bool(quoted) and before.endswith((">", "\n")) and behind.lstrip().startswith("<")

    def _text_gap(self, call_id: str) -> str:
        """Return what the template itself writes between text and a call."""
        for arguments in (json.loads(PROBE_CALL.arguments), PROBE_CALL.arguments):
            function = {"name": PROBE_CALL.name, "arguments": arguments}
            call = {"id": call_id, "type": "function", "function": function}
            turn = {"role": "assistant", "content": "T1", "tool_calls": [call]}
            _, _, behind = self._text([_user("U1"), turn]).partition("T1")
            gap, found, _ = behind.partition(self.spelled)
            if found and not gap.strip():
                return gap
        return ""

    def _keeps_calls(self, call_id: str, text: str, reasoning: str) -> bool:
        """Tell whether a turn keeps its call, and its text, where something stands beside it."""
        call, result = self.call_turn(call_id, text, reasoning), self.result_turn(call_id, "X1")
        rendered = self._text([_user("U1"), call, result])
        kept = text in rendered and PROBE_CALL.name in rendered
        return kept or PROBE_CALL.name not in self._calls(call_id)


def learn_features(probes: Probes) -> TemplateFeatures:
    """Return what a template accepts, first of all the forms of tools and of content."""
    for tools_as_list, content_parts in itertools.product((False, True), repeat=2):
        options = {**probes.options, "tools": []} if tools_as_list else probes.options
        formed = replace(probes, options=options, content_parts=content_parts)
        if formed.accepts([_user("U1")]):
            learned = formed.learn()
            return replace(learned, tools_as_list=tools_as_list, content_parts=content_parts)
    return TemplateFeatures()


def as_parts(turn: Turn) -> Turn:
    """Return a turn with its text as a list of one part."""
    if not isinstance(turn["content"], str):
        return turn
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _system(text: str) -> Turn:
    return {"role": "system", "content": text}


def _user(text: str) -> Turn:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}
