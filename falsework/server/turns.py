"""From a question to what the engine needs: prompt, constraint, and the reader of the reply."""

import hashlib
import time
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread
import cachetools

from falsework.grammars.automata import DEAD, START, Automaton, Unsayable, compile_expression
from falsework.grammars.expressions import TooLarge
from falsework.grammars.forced import forced_run
from falsework.grammars.policy import ToolChoice
from falsework.grammars.readers import Reader
from falsework.grammars.turns import Form, FormRefused, compose, resting_state
from falsework.grammars.vocabularies import Vocabulary
from falsework.prompts.conversations import Prompt, Prompter, Unpromptable
from falsework.runtime import telemetry
from falsework.server.engines.base import Constraint, Sampling
from falsework.server.engines.decoders import ThinkBudget
from falsework.server.questions import Question
from falsework.server.refusals import BadRequest, BadSchema, ContextOverflow

KEPT_BYTES = 256 * 2**20
COMPILERS = 2
"""How many schemas are compiled at once; the rest wait, and hold up nobody who needs none."""


@dataclass(frozen=True)
class Opening:
    """What every reply of a form begins with: it is put to the prompt instead of being decoded."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    state: int = START


NO_OPENING = Opening()


@dataclass(frozen=True)
class Turn:
    """One turn of the model, ready for the engine; `prompt` ends with the opening's tokens."""

    prompt: tuple[int, ...]
    sampling: Sampling
    constraint: Constraint | None
    form: Form
    opening: Opening = NO_OPENING

    def reader(self) -> Reader:
        """Return a reader for one choice, which knows the opening already."""
        return Reader(self.form, self.opening.text)


@dataclass(frozen=True)
class _Compiled:
    """A form's constraint, the resting state of its think block, its opening."""

    constraint: Constraint
    resting: int
    opening: Opening


class Scaffold:
    """What makes a model call tools: its prompts, its constraints, its readers."""

    def __init__(
        self, prompter: Prompter, vocabulary: Vocabulary, max_model_len: int, *, think_budget: int
    ) -> None:
        self.dialect_name = prompter.dialect.name
        self.max_model_len = max_model_len
        self._prompter = prompter
        self._vocabulary = vocabulary
        self._think_budget = think_budget
        self._compilers = anyio.CapacityLimiter(COMPILERS)
        self._kept: cachetools.LRUCache[bytes, _Compiled] = cachetools.LRUCache(
            KEPT_BYTES, getsizeof=lambda kept: len(kept.constraint.automaton)
        )
        self._compiling: dict[bytes, anyio.Event] = {}

    async def prepare(self, question: Question) -> Turn:
        """Return the turn; raise BadRequest, BadSchema or ContextOverflow."""
        prompt = await anyio.to_thread.run_sync(self._lay_out, question)
        form = self._form(question, prompt)
        sampling = self._fitted(question.sampling, len(prompt.tokens))
        if not (form.tools or form.answer is not None or form.thinking):
            return Turn(prompt.tokens, sampling, None, form)
        kept = await self._compiled(form)
        opening = kept.opening
        if question.sampling.logprobs is not None or len(opening.tokens) >= sampling.max_tokens:
            opening = NO_OPENING
        return Turn(
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

    def _lay_out(self, question: Question) -> Prompt:
        tools = question.tools if question.choice.mode != "none" else ()
        try:
            return self._prompter.lay_out(
                question.messages, tools,
                parallel=question.choice.parallel, think=question.think_budget != 0,
            )  # fmt: skip
        except Unpromptable as fault:
            raise BadRequest(str(fault), "messages") from fault

    def _form(self, question: Question, prompt: Prompt) -> Form:
        dialect = self._prompter.dialect
        schema = question.response_schema
        return Form(
            dialect.markup,
            question.tools,
            question.choice if question.tools else ToolChoice("none"),
            {"type": "object"} if schema is True else schema,
            question.response_schema_where,
            dialect.think if prompt.thinking or question.think_budget != 0 else None,
            prompt.thinking,
        )

    def _think(self, question: Question, resting: int) -> ThinkBudget | None:
        """Return the budget of the think block: at most half of what the client allows in all."""
        block = self._prompter.dialect.think
        if block is None or resting == DEAD:
            return None
        asked = question.think_budget
        tokens = self._think_budget if asked is None else asked
        if question.sampling.max_tokens:
            tokens = min(tokens, question.sampling.max_tokens // 2)
        return ThinkBudget(tokens, resting, tuple(self._encode(block.closing)))

    def _fitted(self, sampling: Sampling, prompt: int) -> Sampling:
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
            raise ContextOverflow(msg, "messages")
        return replace(sampling, max_tokens=asked or left)

    async def _compiled(self, form: Form) -> _Compiled:
        """Return a form's constraint, kept or compiled now; once for requests that come at once."""
        key = form.key()
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

    def _compile(self, form: Form) -> _Compiled:
        try:
            automaton = compile_expression(compose(form), self._vocabulary.alphabet)
        except FormRefused as fault:
            raise _refusal(fault) from fault
        except TooLarge as fault:
            where = form.answer_where if not form.tools else "tools"
            msg = f"These schemas can't be enforced together: {fault}."
            raise BadSchema(msg, where) from fault
        except Unsayable as fault:
            msg = "These schemas can't be enforced: nothing that this model can say satisfies them."
            raise BadSchema(msg, "tools" if form.tools else form.answer_where) from fault
        packed = automaton.packed()
        digest = hashlib.blake2b(packed, digest_size=16).digest()
        resting = resting_state(form, automaton)
        return _Compiled(Constraint(digest, packed), resting, self._opening(automaton))

    def _opening(self, automaton: Automaton) -> Opening:
        tokens = forced_run(automaton, START, self._vocabulary, self._encode).forced
        if tokens and tokens[-1] in self._vocabulary.ends:
            tokens = tokens[:-1]  # all of the reply is known; its end is left to the engine
        said = [self._vocabulary.tokens[token] or b"" for token in tokens]
        while said and not _whole(b"".join(said)):
            said.pop()  # a token may end inside a character, which a prompt shouldn't
        text = b"".join(said)
        return Opening(tokens[: len(said)], text.decode(), automaton.step(START, text))

    def _encode(self, text: str) -> list[int]:
        return self._prompter.tokenizer.encode(text, add_special_tokens=False)


def _whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refusal(fault: FormRefused) -> BadSchema:
    field = fault.where.partition("#")[0]
    if fault.tool is None:
        msg = f"Invalid schema for response_format: {fault} (at {fault.where})."
        return BadSchema(msg, field, code="invalid_json_schema")
    return BadSchema(
        f"Invalid schema for function '{fault.tool}': {fault} (at {fault.where}).", field
    )
