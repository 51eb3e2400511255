"""From a request to what the engine needs: prompt, constraint, and the reader of the reply."""

import hashlib
import time
from dataclasses import dataclass, replace

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
from falsework.prompts.renderer import ChatTemplateError, Prompt, PromptRenderer
from falsework.server.engines.base import Constraint, SamplingParams, ThinkingBudget
from falsework.server.errors import BadRequestError, ContextLengthExceeded, InvalidSchemaError
from falsework.server.generation.request import GenerationRequest
from falsework.server.observability import telemetry

GRAMMAR_CACHE_BYTES = 256 * 2**20
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
    """One turn of a request, ready for the engine; `prompt` ends with the opening's tokens."""

    request: GenerationRequest
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

    async def build(self, request: GenerationRequest) -> PreparedTurn:
        """Return the turn of a request: its prompt laid out and tokenised, its grammar compiled.

        Raise BadRequestError, InvalidSchemaError or ContextLengthExceeded.
        """
        prompt = await anyio.to_thread.run_sync(self._lay_out, request)
        form = self._form(request, prompt)
        sampling = self._fitted(request, len(prompt.tokens))
        if not (form.tools or form.answer is not None or form.thinking):
            return PreparedTurn(request, prompt.tokens, sampling, None, form)
        kept = await self._compiled(form)
        opening = kept.opening
        if request.sampling.logprobs is not None or len(opening.tokens) >= sampling.max_tokens:
            opening = NO_PREFIX
        return PreparedTurn(
            request,
            prompt.tokens + opening.tokens,
            replace(sampling, max_tokens=sampling.max_tokens - len(opening.tokens)),
            replace(
                kept.constraint,
                start=opening.state,
                opening=opening.text,
                think=self._think(request, kept.resting),
            ),
            form,
            opening,
        )

    def _lay_out(self, request: GenerationRequest) -> Prompt:
        tools = request.tools if request.choice.mode != "none" else ()
        try:
            return self._prompter.render(
                request.messages,
                tools,
                parallel=request.choice.parallel,
                think=request.think_budget != 0,
            )
        except ChatTemplateError as error:
            raise BadRequestError(str(error), request.params.messages) from error

    def _form(self, request: GenerationRequest, prompt: Prompt) -> ReplyFormat:
        dialect = self._prompter.dialect
        schema = request.response_schema
        return ReplyFormat(
            dialect.markup,
            request.tools,
            request.choice if request.tools else ToolChoice("none"),
            {"type": "object"} if schema is True else schema,
            request.params.schema,
            dialect.think if prompt.thinking or request.think_budget != 0 else None,
            prompt.thinking,
        )

    def _think(self, request: GenerationRequest, resting: int) -> ThinkingBudget | None:
        """Return the budget of the think block: at most half of what the client allows in all."""
        block = self._prompter.dialect.think
        if block is None or resting == DEAD:
            return None
        given = request.think_budget
        tokens = self._think_budget if given is None else given
        if request.sampling.max_tokens:
            tokens = min(tokens, request.sampling.max_tokens // 2)
        return ThinkingBudget(tokens, resting, tuple(self._encode(block.closing)))

    def _fitted(self, request: GenerationRequest, prompt: int) -> SamplingParams:
        """Return the sampling, its limit of tokens within the model's context."""
        left = self.max_model_len - prompt
        most, param = request.sampling.max_tokens, request.params.messages
        if left < max(1, most):
            tokens = f"{prompt + most} tokens ({prompt} in the {param}, {most} in the completion)"
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens. "
                f"However, you requested {tokens}. Please shorten the {param} or the completion."
            )
            raise ContextLengthExceeded(message, param)
        return replace(request.sampling, max_tokens=most or left)

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
        except UnsupportedFormat as error:
            raise _refusal(error) from error
        except GrammarTooLarge as error:
            where = form.answer_where if not form.tools else "tools"
            msg = f"These schemas can't be enforced together: {error}."
            raise InvalidSchemaError(msg, where) from error
        except EmptyLanguage as error:
            msg = "These schemas can't be enforced: nothing that this model can say satisfies them."
            raise InvalidSchemaError(msg, "tools" if form.tools else form.answer_where) from error
        packed = automaton.to_bytes()
        digest = hashlib.blake2b(packed, digest_size=16).digest()
        resting = between_characters_state(form, automaton)
        return _Compiled(Constraint(digest, packed), resting, self._opening(automaton))

    def _opening(self, automaton: DFA) -> ForcedPrefix:
        tokens = forced_tokens(automaton, START, self._vocabulary, self._encode).forced
        if tokens and tokens[-1] in self._vocabulary.ends:
            tokens = tokens[:-1]  # all of the reply is known; its end is left to the engine
        spelled = [self._vocabulary.tokens[token] or b"" for token in tokens]
        while spelled and not _whole(b"".join(spelled)):
            spelled.pop()  # a token may end inside a character, which a prompt shouldn't
        text = b"".join(spelled)
        return ForcedPrefix(tokens[: len(spelled)], text.decode(), automaton.step(START, text))

    def _encode(self, text: str) -> list[int]:
        return self._prompter.tokenizer.encode(text, add_special_tokens=False)


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refusal(error: UnsupportedFormat) -> InvalidSchemaError:
    field = error.where.partition("#")[0]
    if error.tool is None:
        msg = f"Invalid schema for response_format: {error} (at {error.where})."
        return InvalidSchemaError(msg, field, code="invalid_json_schema")
    return InvalidSchemaError(
        f"Invalid schema for function '{error.tool}': {error} (at {error.where}).", field
    )
