"""`falsework prompt`: what a model is shown of a request, and what it may reply."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from falsework.grammars.dfa import DEAD, START, from_bytes
from falsework.grammars.events import Arguments, CallBegins, Reasoning, Text
from falsework.grammars.llguidance_grammar import byte_tokenizer, compile_grammar
from falsework.grammars.output_parser import OutputParser
from falsework.prompts.detection import UnknownDialect, detect_renderer
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import (
    build_vocabulary,
    eos_token_ids,
    load_tokenizer,
)
from falsework.server.api.chat import parse, to_generation_request
from falsework.server.engines import Constraint
from falsework.server.generation import PreparedTurn, TurnBuilder
from falsework.server.models import resolve_model
from falsework.server.settings import ConfigError, load

Json = dict[str, Any]

MAX_MODEL_LEN = 2**31
"""A prompt is shown whole, whatever the model's context length is."""


@dataclass(frozen=True)
class PromptReport:
    """All that is known of a request's prompt; `pieces` are (text of a token, is it control)."""

    fields: Json
    pieces: Sequence[tuple[str, bool]]

    def __str__(self) -> str:
        """Lay it out for a terminal."""
        fields = self.fields
        section = "the model's own" if fields["knows_tools"] else "ours"
        lines = [
            f"dialect: {fields['dialect']} ({fields['why']})",
            f"tool section: {section}",
            f"think block: {'yes' if fields['thinks'] else 'none'}",
            f"tokens: {len(fields['tokens'])}, of which {len(fields['control_tokens'])} control",
            f"opening: {fields['opening']!r}",
            "",
            "".join(_marked(text) if control else text for text, control in self.pieces),
        ]
        if "admits" in fields:
            lines += ["", _verdict(fields["admits"])]
        return "\n".join(lines)


def report(
    model: str, body: bytes, *, chat_template: str, dialect: str, admits: str | None
) -> PromptReport:
    """Return what a model is shown of a chat request's body.

    Raise UnknownModel, UnusableModel, ConfigError or BadRequestError.
    """
    settings = load({}, None)
    question = to_generation_request(parse(body), settings)
    folder = _folder(model)
    try:
        renderer = detect_renderer(load_tokenizer(folder, chat_template), dialect)
    except UnknownDialect as error:
        raise ConfigError(str(error)) from error
    vocabulary = build_vocabulary(renderer.tokenizer, renderer.dialect.markers, _ends(Path(folder)))
    builder = TurnBuilder(renderer, vocabulary, MAX_MODEL_LEN, think_budget=settings.think_budget)
    shown, turn = builder.lay_out(question), asyncio.run(builder.build(question))
    control = renderer.control_tokens.ids
    fields = {
        "dialect": renderer.dialect.name,
        "why": _why(renderer, named=dialect != "auto"),
        "knows_tools": renderer.knows_tools,
        "thinks": renderer.dialect.think is not None,
        "thinking": shown.thinking,
        "text": shown.text,
        "tokens": list(shown.tokens),
        "control_tokens": [token for token in shown.tokens if token in control],
        "opening": turn.opening.text,
    }
    if admits is not None:
        fields["admits"] = _admits(turn, admits)
    return PromptReport(fields, _pieces(renderer.tokenizer, shown.tokens, control))


def _folder(model: str) -> str:
    """Return where the tokenizer is: a folder needs no config.json for that."""
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    return str(resolve_model(model, lambda line: typer.echo(line, err=True)))


def _ends(folder: Path) -> Sequence[int]:
    """Return the tokens that end a reply by the model's generation_config, where there is one."""
    try:
        return eos_token_ids(json.loads((folder / "generation_config.json").read_text("utf-8")))
    except (OSError, ValueError):
        return ()


def _why(renderer: PromptRenderer, *, named: bool) -> str:
    if named:
        return "named by --dialect"
    if renderer.dialect.name == "scaffold":
        return "the chat template writes calls in no form that is known here"
    return "the chat template writes calls in its form"


def _pieces(
    tokenizer: Any, tokens: Sequence[int], control: frozenset[int]
) -> list[tuple[str, bool]]:
    """Return the prompt's text cut where control tokens are."""
    pieces: list[tuple[str, bool]] = []
    text: list[int] = []
    for token in tokens:
        if token in control:
            pieces += [(tokenizer.decode(text), False)] if text else []
            pieces.append((tokenizer.decode([token]), True))
            text = []
        else:
            text.append(token)
    return [*pieces, (tokenizer.decode(text), False)] if text else pieces


def _marked(control: str) -> str:
    return typer.style(f"⟦{control}⟧", fg=typer.colors.CYAN)


def _said(constraint: Constraint, text: str) -> tuple[int, bool]:
    """Return how many characters of a text may begin a reply, and whether it may be all of it."""
    encoded = text.encode()
    if constraint.kind == "llguidance":
        matcher = compile_grammar(byte_tokenizer(), constraint.grammar.decode())
        taken = matcher.try_consume_tokens(list(encoded))
        return len(encoded[:taken].decode(errors="ignore")), matcher.is_accepting()
    automaton = from_bytes(constraint.grammar)
    lengths = itertools.accumulate(len(character.encode()) for character in text)
    states = (automaton.step(START, encoded[:length]) for length in lengths)
    until = sum(1 for _ in itertools.takewhile(lambda state: state != DEAD, states))
    return until, automaton.accepts(text)


def _admits(turn: PreparedTurn, text: str) -> Json:
    """Say whether a whole reply may be the text, and how it is read.

    `until` is how many characters of it may begin a reply.
    """
    until, complete = len(text), True
    if turn.constraint is not None:
        until, complete = _said(turn.constraint, text)
    report: Json = {"admitted": complete, "until": until}
    if complete:
        report["read"] = _read(turn, text)
    return report


def _read(turn: PreparedTurn, text: str) -> Json:
    """Return what a client is told of a reply."""
    parser = OutputParser(turn.form)
    read: Json = {"reasoning": "", "content": "", "tool_calls": []}
    for event in (*parser.feed(text), *parser.close(complete=True)):
        match event:
            case Reasoning(piece):
                read["reasoning"] += piece
            case Text(piece):
                read["content"] += piece
            case CallBegins(_, name):
                read["tool_calls"].append({"name": name, "arguments": ""})
            case Arguments(index, piece):
                read["tool_calls"][index]["arguments"] += piece
    return read


def _verdict(admits: Json) -> str:
    if not admits["admitted"]:
        return f"A reply can't be this text: it may go on so for {admits['until']} characters."
    return f"A reply may be this text, read as {json.dumps(admits['read'], ensure_ascii=False)}"
