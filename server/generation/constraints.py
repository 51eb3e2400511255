"""The constraint of a reply: its grammar compiled for one of two engines, and kept."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread
import cachetools
from llguidance import LLTokenizer

from falsework.grammars.dfa import DEAD, START, EmptyLanguage, compile_dfa
from falsework.grammars.expressions import GrammarTooLarge, literal, sequence
from falsework.grammars.free_text import text_until_marker
from falsework.grammars.jump_forward import forced_tokens
from falsework.grammars.llguidance_grammar import (
    UnsupportedGrammar,
    compile_grammar,
    is_empty,
    make_tokenizer,
)
from falsework.grammars.llguidance_reply import lark_reply
from falsework.grammars.reply_grammar import (
    ReplyFormat,
    ReplyPlan,
    UnsupportedFormat,
    between_characters_state,
    plan_reply,
    reply_grammar,
)
from falsework.grammars.vocabulary import Vocabulary
from falsework.server.engines.base import Constraint
from falsework.server.errors import InvalidSchemaError
from falsework.server.generation.trial_process import TrialProcess, TrialTooLong
from falsework.server.observability import telemetry

GRAMMAR_CACHE_BYTES = 256 * 2**20
MAX_PARALLEL_COMPILES = 2
"""Grammars that are compiled at once; others wait, and hold up nobody who needs none."""


@dataclass(frozen=True)
class ForcedPrefix:
    """What every reply of a form begins with: it is put to the prompt instead of being decoded."""

    tokens: tuple[int, ...] = ()
    text: str = ""


NO_PREFIX = ForcedPrefix()


@dataclass(frozen=True)
class CompiledConstraint:
    """A form's constraint, the resting state of its think block, its forced prefix."""

    constraint: Constraint
    resting: int
    opening: ForcedPrefix


class ConstraintCompiler:
    """Compiles forms of replies for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, encode: Callable[[str], Sequence[int]]) -> None:
        self._vocabulary = vocabulary
        self._encode = encode
        self._compilers = anyio.CapacityLimiter(MAX_PARALLEL_COMPILES)
        self._trials = TrialProcess()
        self._tokenizer: LLTokenizer | None = None
        self._cache: cachetools.LRUCache[bytes, CompiledConstraint] = cachetools.LRUCache(
            GRAMMAR_CACHE_BYTES, getsizeof=lambda kept: len(kept.constraint.grammar)
        )
        self._compiling: dict[bytes, anyio.Event] = {}

    async def compiled(self, form: ReplyFormat) -> CompiledConstraint:
        """Return a form's constraint, kept or compiled now; once for requests that come at once.

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
                kept = await anyio.to_thread.run_sync(self._compile, form, limiter=self._compilers)
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
            if plan.needs_llguidance:
                return self._by_llguidance(form, plan)
            return self._by_automaton(form, plan)
        except UnsupportedFormat as error:
            raise _refusal(error) from error
        except (GrammarTooLarge, UnsupportedGrammar, TrialTooLong) as error:
            msg = f"These schemas can't be enforced together: {error}."
            raise InvalidSchemaError(msg, where) from error
        except EmptyLanguage as error:
            msg = "These schemas can't be enforced: nothing that this model can say satisfies them."
            raise InvalidSchemaError(msg, where) from error

    def _by_automaton(self, form: ReplyFormat, plan: ReplyPlan) -> CompiledConstraint:
        try:
            automaton = compile_dfa(reply_grammar(form, plan), self._vocabulary.alphabet)
        except GrammarTooLarge:
            return self._by_llguidance(form, plan)
        packed = automaton.to_bytes()
        tokens = forced_tokens(automaton, START, self._vocabulary, self._encode).forced
        resting = between_characters_state(form, automaton)
        return CompiledConstraint(
            Constraint(_digest(packed), packed), resting, self._opening(tokens)
        )

    def _by_llguidance(self, form: ReplyFormat, plan: ReplyPlan) -> CompiledConstraint:
        grammar = lark_reply(form, plan)
        if reason := self._trials.ask("compile", grammar=grammar):
            raise UnsupportedGrammar(reason)
        matcher = compile_grammar(self.llguidance_tokenizer(), grammar)
        if is_empty(matcher):
            raise EmptyLanguage
        packed = grammar.encode()
        block, resting = self._think_block(form)
        constraint = Constraint(_digest(packed), packed, "llguidance", think_block=block)
        opening = self._opening(tuple(matcher.compute_ff_tokens()))
        return CompiledConstraint(constraint, resting, opening)

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


def _digest(packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=16).digest()


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refusal(error: UnsupportedFormat) -> InvalidSchemaError:
    param = error.where.partition("#")[0]
    if error.tool is None:
        msg = f"Invalid schema for response_format: {error} (at {error.where})."
        return InvalidSchemaError(msg, param, code="invalid_json_schema")
    msg = f"Invalid schema for function '{error.tool}': {error} (at {error.where})."
    return InvalidSchemaError(msg, param)
