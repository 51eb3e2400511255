"""From a question to what the engine needs: prompt, constraint, and the reader of the reply."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.to_thread
import cachetools

from falsework.grammars.dfa import DEAD, DFA, START, EmptyLanguage, compile_dfa
from falsework.grammars.expressions import GrammarTooLarge
from falsework.grammars.jump_forward import forced_tokens
from falsework.grammars.output_parser import OutputParser
from falsework.grammars.reply_grammar import (
    ReplyFormat,
    UnsupportedFormat,
    between_characters_state,
    reply_grammar,
)
from falsework.grammars.tool_choice import ToolChoice
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.renderer import ChatTemplateError, Prompt, PromptRenderer, UnknownSwitch
from falsework.server.api.chat.request import GenerationRequest
from falsework.server.engines.base import Constraint, SamplingParams
from falsework.server.engines.matcher import ThinkingBudget
from falsework.server.errors import BadRequestError, ContextLengthExceeded, InvalidSchemaError
from falsework.server.observability import telemetry

GRAMMAR_CACHE_BYTES = 256 * 2**20
BUDGET_SWITCH = "thinking_budget"
"""The switch by which chat templates take tokens for the think block (Seed-OSS)."""
MAX_PARALLEL_COMPILES = 2
"""How many schemas are compiled at once; the rest wait, and hold up nobody who needs none."""


@dataclass(frozen=True)
class ForcedPrefix:
    """What every reply of a form begins with: it is put to the prompt instead of being decoded."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    state: int = START


NO_PREFIX = ForcedPrefix()


@dataclass(frozen=True)
class PreparedTurn:
    """One turn of the model, ready for the engine; `prompt` ends with the opening's tokens."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    constraint: Constraint | None
    form: ReplyFormat
    opening: ForcedPrefix = NO_PREFIX

    def reader(self) -> OutputParser:
        """Return a reader for one choice, which knows the opening already."""
        return OutputParser(self.form, self.opening.text)


@dataclass(frozen=True)
class _Compiled:
    """A form's constraint, the resting state of its think block, its opening."""

    constraint: Constraint
    resting: int
    opening: ForcedPrefix


class TurnBuilder:
    """What makes a model call tools: its prompts, its constraints, its readers."""

    def __init__(
        self,
        prompter: PromptRenderer,
        vocabulary: Vocabulary,
        max_model_len: int,
        *,
        think_budget: int,
    ) -> None:
        self.dialect_name = prompter.dialect.name
        self.max_model_len = max_model_len
        self._prompter = prompter
        self._vocabulary = vocabulary
        self._think_budget = think_budget
        self._compilers = anyio.CapacityLimiter(MAX_PARALLEL_COMPILES)
        self._kept: cachetools.LRUCache[bytes, _Compiled] = cachetools.LRUCache(
            GRAMMAR_CACHE_BYTES, getsizeof=lambda kept: len(kept.constraint.automaton)
        )
        self._compiling: dict[bytes, anyio.Event] = {}

    async def build(self, question: GenerationRequest) -> PreparedTurn:
        """Return the turn; raise BadRequest, BadSchema or ContextOverflow."""
        prompt = await anyio.to_thread.run_sync(self.lay_out, question)
        form = self._form(question, prompt)
        sampling = self._fitted(question.sampling, len(prompt.tokens))
        marked = bool(form.markup.answer_opening)
        if not (form.tools or form.answer is not None or form.thinking or marked):
            return PreparedTurn(prompt.tokens, sampling, None, form)
        kept = await self._compiled(form)
        opening = kept.opening
        if question.sampling.logprobs is not None or len(opening.tokens) >= sampling.max_tokens:
            opening = NO_PREFIX
        return PreparedTurn(
            prompt.tokens + opening.tokens,
            replace(sampling, max_tokens=sampling.max_tokens - len(opening.tokens)),
            replace(
                kept.constraint,
                start=opening.state,
                opening=opening.text,
                think=self._think(question, kept.resting),
            ),
            form,
            opening,
        )

    def lay_out(self, question: GenerationRequest) -> Prompt:
        """Return the prompt without its opening; raise BadRequestError for what it can't show."""
        tools = question.tools if question.choice.mode != "none" else ()
        try:
            return self._prompter.render(
                question.messages, tools,
                parallel=question.choice.parallel, think=question.think_budget != 0,
                effort=question.effort, switches=self._switches(question),
            )  # fmt: skip
        except UnknownSwitch as fault:
            param = f"chat_template_kwargs.{fault.name[:100]}"
            raise BadRequestError(str(fault), param, "unsupported_parameter") from fault
        except ChatTemplateError as fault:
            raise BadRequestError(str(fault), "messages") from fault

    def _switches(self, question: GenerationRequest) -> Mapping[str, Any]:
        """Return the switches of the chat template that the request sets, or its budget does."""
        if question.think_budget is None or BUDGET_SWITCH not in self._prompter.template.switches:
            return question.template_switches
        return {BUDGET_SWITCH: question.think_budget, **question.template_switches}

    def _form(self, question: GenerationRequest, prompt: Prompt) -> ReplyFormat:
        dialect = self._prompter.dialect
        schema = question.response_schema
        return ReplyFormat(
            dialect.markup,
            question.tools,
            question.choice if question.tools else ToolChoice("none"),
            {"type": "object"} if schema is True else schema,
            question.response_schema_where,
            dialect.think if prompt.thinking or question.think_budget != 0 else None,
            prompt.thinking,
        )

    def _think(self, question: GenerationRequest, resting: int) -> ThinkingBudget | None:
        """Return the budget of the think block: at most half of what the client allows in all."""
        block = self._prompter.dialect.think
        if block is None or resting == DEAD:
            return None
        asked = question.think_budget
        tokens = self._think_budget if asked is None else asked
        if question.sampling.max_tokens:
            tokens = min(tokens, question.sampling.max_tokens // 2)
        return ThinkingBudget(tokens, resting, tuple(self._encode(block.closing)))

    def _fitted(self, sampling: SamplingParams, prompt: int) -> SamplingParams:
        left = self.max_model_len - prompt
        asked = sampling.max_tokens
        if left < max(1, asked):
            wanted = (
                f"{prompt + asked} tokens ({prompt} in the messages, {asked} in the completion)"
            )
            msg = (
                f"This model's maximum context length is {self.max_model_len} tokens. "
                f"However, you requested {wanted}. Please shorten the messages or the completion."
            )
            raise ContextLengthExceeded(msg, "messages")
        return replace(sampling, max_tokens=asked or left)

    async def _compiled(self, form: ReplyFormat) -> _Compiled:
        """Return a form's constraint, kept or compiled now; once for requests that come at once."""
        key = form.cache_key()
        while key in self._compiling:
            await self._compiling[key].wait()
        kept = self._kept.get(key)
        telemetry.GRAMMAR_CACHE.labels("hit" if kept else "miss").inc()
        if kept is None:
            began = time.monotonic()
            compiled = self._compiling[key] = anyio.Event()
            try:
                kept = await anyio.to_thread.run_sync(self._compile, form, limiter=self._compilers)
                self._kept[key] = kept
            finally:
                del self._compiling[key]
                compiled.set()
            telemetry.GRAMMAR_SECONDS.observe(time.monotonic() - began)
        return kept

    def _compile(self, form: ReplyFormat) -> _Compiled:
        try:
            automaton = compile_dfa(reply_grammar(form), self._vocabulary.alphabet)
        except UnsupportedFormat as fault:
            raise _refusal(fault) from fault
        except GrammarTooLarge as fault:
            where = form.answer_where if not form.tools else "tools"
            msg = f"These schemas can't be enforced together: {fault}."
            raise InvalidSchemaError(msg, where) from fault
        except EmptyLanguage as fault:
            msg = "These schemas can't be enforced: nothing that this model can say satisfies them."
            raise InvalidSchemaError(msg, "tools" if form.tools else form.answer_where) from fault
        packed = automaton.to_bytes()
        digest = hashlib.blake2b(packed, digest_size=16).digest()
        resting = between_characters_state(form, automaton)
        return _Compiled(Constraint(digest, packed), resting, self._opening(automaton))

    def _opening(self, automaton: DFA) -> ForcedPrefix:
        tokens = forced_tokens(automaton, START, self._vocabulary, self._encode).forced
        if tokens and tokens[-1] in self._vocabulary.ends:
            tokens = tokens[:-1]  # all of the reply is known; its end is left to the engine
        said = [self._vocabulary.tokens[token] or b"" for token in tokens]
        while said and not _whole(b"".join(said)):
            said.pop()  # a token may end inside a character, which a prompt shouldn't
        text = b"".join(said)
        return ForcedPrefix(tokens[: len(said)], text.decode(), automaton.step(START, text))

    def _encode(self, text: str) -> list[int]:
        return self._prompter.tokenizer.encode(text, add_special_tokens=False)


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refusal(fault: UnsupportedFormat) -> InvalidSchemaError:
    field = fault.where.partition("#")[0]
    if fault.tool is None:
        msg = f"Invalid schema for response_format: {fault} (at {fault.where})."
        return InvalidSchemaError(msg, field, code="invalid_json_schema")
    return InvalidSchemaError(
        f"Invalid schema for function '{fault.tool}': {fault} (at {fault.where}).", field
    )
