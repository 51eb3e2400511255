"""The constraint of a reply: its grammar compiled for one of two engines, and kept."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import cachetools
from llguidance import LLTokenizer

from falsework.grammars import (
    GrammarTooLarge,
    SchemaPlan,
    literal,
    sequence,
    states_behind_calls,
    text_until_marker,
)
from falsework.grammars.call_decisions import call_decisions
from falsework.grammars.dfa import DEAD, START, EmptyLanguage, compile_dfa, from_bytes
from falsework.grammars.jump_forward import forced_tokens
from falsework.grammars.last_choice import last_choice
from falsework.grammars.llguidance_grammar import (
    UnsupportedGrammar,
    byte_tokenizer,
    compile_grammar,
    is_empty,
    make_tokenizer,
)
from falsework.grammars.llguidance_reply import lark_reply
from falsework.grammars.reply_format import ReplyFormat, ReplyPlan, UnsupportedFormat, plan_reply
from falsework.grammars.reply_grammar import between_characters_state, reply_grammar
from falsework.grammars.text_grammar import TextGrammar
from falsework.grammars.vocabulary import Vocabulary
from falsework.server.engines import Constraint
from falsework.server.errors import BadRequestError, InvalidSchemaError
from falsework.server.generation.check_policy import DEFAULT_CHECKS, CheckPolicy, refuse_checks
from falsework.server.generation.fair_limiter import FairLimiter
from falsework.server.generation.trial_process import TrialProcess, TrialTooLong
from falsework.server.observability import telemetry

GRAMMAR_CACHE_BYTES = 256 * 2**20
MAX_PARALLEL_COMPILES = 3
"""Grammars that are compiled at once; others wait, and hold up nobody who needs none."""


@dataclass(frozen=True)
class ForcedPrefix:
    """What every reply of a form begins with: it is put to the prompt instead of being decoded."""

    tokens: tuple[int, ...] = ()
    text: str = ""


NO_PREFIX = ForcedPrefix()

ANSWER = ""
"""What stands for the answer where tools stand by their names."""


@dataclass(frozen=True)
class Judged:
    """A schema as a validator is given it, as JSON text, and the draft that it was written in."""

    schema: str
    draft: str


@dataclass(frozen=True)
class CompiledConstraint:
    """A form's constraint, the resting state of its think block, its forced prefix.

    `checks`: the schemas of calls and answers that have to be judged when they are complete, by the
    tool's name or ANSWER.
    """

    constraint: Constraint
    resting: int
    opening: ForcedPrefix
    checks: Mapping[str, Judged] = field(default_factory=dict)


class ConstraintCompiler:
    """Compiles forms of replies for one vocabulary."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        encode: Callable[[str], Sequence[int]],
        checks: CheckPolicy = DEFAULT_CHECKS,
    ) -> None:
        self._vocabulary = vocabulary
        self._encode = encode
        self._checks = checks
        self._compilers = FairLimiter(MAX_PARALLEL_COMPILES)
        self._threads = anyio.CapacityLimiter(MAX_PARALLEL_COMPILES)
        self._trials = TrialProcess()
        self._tokenizer: LLTokenizer | None = None
        self._cache: cachetools.LRUCache[bytes, CompiledConstraint] = cachetools.LRUCache(
            GRAMMAR_CACHE_BYTES, getsizeof=lambda kept: len(kept.constraint.grammar)
        )
        self._compiling: dict[bytes, anyio.Event] = {}

    async def compiled(self, form: ReplyFormat, owner: str = "") -> CompiledConstraint:
        """Return a form's constraint, kept or compiled now; once for requests that come at once.

        Owners are served in turn, so that one's new schemas delay no other's for long.
        Raise InvalidSchemaError for a schema or grammar that can't be enforced.
        """
        key = form.cache_key()
        while key in self._compiling:
            await self._compiling[key].wait()
        kept = self._cache.get(key)
        telemetry.GRAMMAR_CACHE.labels("hit" if kept else "miss").inc()
        if kept is None:
            began = time.monotonic()
            compiled = self._compiling[key] = anyio.Event()
            try:
                async with self._compilers.hold(owner):
                    kept = await anyio.to_thread.run_sync(
                        self._compile, form, limiter=self._threads
                    )
                self._cache[key] = kept
            finally:
                del self._compiling[key]
                compiled.set()
            telemetry.GRAMMAR_SECONDS.observe(time.monotonic() - began)
        return kept

    def _compile(self, form: ReplyFormat) -> CompiledConstraint:
        where = "tools" if form.tools else form.answer_where
        try:
            plan = plan_reply(form)
            self._refuse_checks(form, plan)
            if plan.needs_llguidance:
                return self._by_llguidance(form, plan)
            return self._by_automaton(form, plan)
        except UnsupportedFormat as error:
            raise _refusal(error) from error
        except (GrammarTooLarge, UnsupportedGrammar, TrialTooLong) as error:
            if form.text:
                raise _bad_grammar(form.text, str(error)) from error
            msg = f"These schemas can't be enforced together: {error}."
            raise InvalidSchemaError(msg, where) from error
        except EmptyLanguage as error:
            if form.text:
                raise _bad_grammar(form.text, "no text satisfies it") from error
            msg = "These schemas can't be enforced: nothing that this model can say satisfies them."
            raise InvalidSchemaError(msg, where) from error

    def _refuse_checks(self, form: ReplyFormat, plan: ReplyPlan) -> None:
        """Refuse keywords that can only be checked, where the client or the operator wants it."""
        refused = self._checks.unenforceable == "refuse"
        for tool in form.choice.callable_tools(form.tools):
            if (tool.strict or refused) and not tool.grammar:
                refuse_checks(plan.arguments[tool.name].checks, tool.where, tool.name)
        if plan.answer and (form.answer_strict or refused):
            refuse_checks(plan.answer.checks, form.answer_where, None)

    def _by_automaton(self, form: ReplyFormat, plan: ReplyPlan) -> CompiledConstraint:
        try:
            automaton = compile_dfa(reply_grammar(form, plan), self._vocabulary.alphabet)
        except GrammarTooLarge:
            return self._by_llguidance(form, plan)
        packed = automaton.to_bytes()
        tokens = forced_tokens(automaton, START, self._vocabulary, self._encode).forced
        resting = between_characters_state(form, automaton)
        checks = {name: _judged(one) for name, one in _named(plan).items() if one.checks}
        decisions = call_decisions(form, automaton, self._vocabulary, self._encode)
        ends = repr(states_behind_calls(decisions)).encode()
        constraint = Constraint(_digest(packed + ends), packed, decisions=decisions)
        return CompiledConstraint(constraint, resting, self._opening(tokens), checks)

    def _by_llguidance(self, form: ReplyFormat, plan: ReplyPlan) -> CompiledConstraint:
        grammar = lark_reply(form, plan)
        if reason := self._trials.ask("compile", grammar=grammar):
            self._blame_tool(form)
            raise UnsupportedGrammar(reason)
        matcher = compile_grammar(self.llguidance_tokenizer(), grammar)
        if is_empty(matcher):
            raise EmptyLanguage
        packed = grammar.encode()
        block, resting = self._think_block(form)
        constraint = Constraint(
            _digest(packed),
            packed,
            "llguidance",
            think_block=block,
            decisions=call_decisions(form, None, self._vocabulary, self._encode),
        )
        opening = self._opening(tuple(matcher.compute_ff_tokens()))
        # All are judged: llguidance lets a free object have a key twice.
        checks = {name: _judged(one) for name, one in _named(plan).items()}
        return CompiledConstraint(constraint, resting, opening, checks)

    def _blame_tool(self, form: ReplyFormat) -> None:
        """Raise where a custom tool's grammar can't be compiled alone."""
        for tool in form.choice.callable_tools(form.tools):
            if tool.grammar:
                alone = json.dumps({"grammars": [{"lark_grammar": tool.grammar.lark()}]})
                if reason := self._trials.ask("compile", grammar=alone):
                    raise _bad_grammar(tool.grammar, reason)

    def judge(self, judged: Judged, text: str) -> Mapping[str, Any] | None:
        """Return the first fault of a JSON text, see `trial_worker`; raise TrialTooLong."""
        fault: Mapping[str, Any] | None = self._trials.ask(
            "judge", schema=judged.schema, draft=judged.draft, text=text
        )
        return fault

    def prefix_tokens(self, text: str) -> tuple[int, ...] | None:
        """Return the tokens of a reply's beginning; None where they spell another text."""
        tokens = tuple(self._encode(text))
        spelled = b"".join(self._vocabulary.tokens[token] or b"" for token in tokens)
        return tokens if spelled == text.encode() else None

    def last_choice(self, constraint: Constraint, text: bytes, start: int, end: int) -> int | None:
        """Return the end of the last byte in text[start:end] that others could have replaced."""
        if constraint.kind == "automaton":
            return last_choice(from_bytes(constraint.grammar), text, start, end)
        matcher = compile_grammar(byte_tokenizer(), constraint.grammar.decode())
        return last_choice(matcher, text, start, end)

    def llguidance_tokenizer(self) -> LLTokenizer:
        """Return llguidance's view of the vocabulary, made at the first call."""
        if self._tokenizer is None:
            vocabulary = self._vocabulary
            self._tokenizer = make_tokenizer(vocabulary.tokens, vocabulary.ends, self._encode)
        return self._tokenizer

    def _think_block(self, form: ReplyFormat) -> tuple[bytes, int]:
        """Return the automaton of the think block alone, and the state between its characters."""
        if form.think is None:
            return b"", DEAD
        block = text_until_marker(form.think.closing)
        if not form.thinking:
            block = sequence(literal(form.think.opening), block)
        automaton = compile_dfa(block, self._vocabulary.alphabet)
        return automaton.to_bytes(), between_characters_state(form, automaton)

    def _opening(self, tokens: tuple[int, ...]) -> ForcedPrefix:
        if tokens and tokens[-1] in self._vocabulary.ends:
            tokens = tokens[:-1]  # all of the reply is known; its end is left to the engine
        spelled = [self._vocabulary.tokens[token] or b"" for token in tokens]
        while spelled and not _whole(b"".join(spelled)):
            spelled.pop()  # a token may end inside a character, which a prompt shouldn't
        return ForcedPrefix(tokens[: len(spelled)], b"".join(spelled).decode())


def _judged(plan: SchemaPlan) -> Judged:
    return Judged(json.dumps(plan.schema), plan.draft)


def _named(plan: ReplyPlan) -> dict[str, SchemaPlan]:
    return {**plan.arguments, **({ANSWER: plan.answer} if plan.answer else {})}


def _digest(packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=16).digest()


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bad_grammar(grammar: TextGrammar, reason: str) -> BadRequestError:
    message = f"Invalid '{grammar.where}': {reason}."
    return BadRequestError(message, grammar.where, "invalid_grammar")


def _refusal(error: UnsupportedFormat) -> InvalidSchemaError:
    param = error.where.partition("#")[0]
    if error.tool is None:
        msg = f"Invalid schema for response_format: {error} (at {error.where})."
        return InvalidSchemaError(msg, param, code="invalid_json_schema")
    msg = f"Invalid schema for function '{error.tool}': {error} (at {error.where})."
    refusal = InvalidSchemaError(msg, param)
    refusal.tool, refusal.too_hard = error.tool, error.too_hard
    return refusal
