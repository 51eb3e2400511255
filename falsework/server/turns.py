"""From a question to what the engine needs: prompt, constraint, and the reader of the reply."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread
import cachetools

from falsework.grammars.automata import DEAD, Unsayable, compile_expression
from falsework.grammars.expressions import TooLarge
from falsework.grammars.policy import ToolChoice
from falsework.grammars.readers import Reader
from falsework.grammars.turns import Form, FormRefused, compose, resting_state
from falsework.grammars.vocabularies import Vocabulary
from falsework.prompts.conversations import Prompt, Prompter, Unpromptable
from falsework.server.engines.base import Constraint, Sampling
from falsework.server.engines.decoders import ThinkBudget
from falsework.server.questions import Question
from falsework.server.refusals import BadRequest, BadSchema, ContextOverflow

KEPT_BYTES = 256 * 2**20
COMPILERS = 2
"""How many schemas are compiled at once; the rest wait, and hold up nobody who needs none."""


@dataclass(frozen=True)
class Turn:
    """One turn of the model, ready for the engine."""

    prompt: tuple[int, ...]
    sampling: Sampling
    constraint: Constraint | None
    reader: Callable[[], Reader]


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
        self._kept: cachetools.LRUCache[str, tuple[bytes, int]] = cachetools.LRUCache(
            KEPT_BYTES, getsizeof=lambda kept: len(kept[0])
        )
        self._lock = threading.Lock()

    async def prepare(self, question: Question) -> Turn:
        """Return the turn; raise BadRequest, BadSchema or ContextOverflow."""
        prompt = await anyio.to_thread.run_sync(self._lay_out, question)
        form = self._form(question, prompt)
        constraint = None
        if form.tools or form.answer is not None or form.thinking:
            automaton, resting = await self._compiled(form)
            constraint = Constraint(automaton, self._think(question, resting))
        sampling = self._fitted(question.sampling, len(prompt.tokens))
        return Turn(prompt.tokens, sampling, constraint, lambda: Reader(form))

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
        close = self._prompter.tokenizer.encode(block.closing, add_special_tokens=False)
        return ThinkBudget(tokens, resting, tuple(close))

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

    async def _compiled(self, form: Form) -> tuple[bytes, int]:
        """Return the packed automaton of a form and the resting state of its think block."""
        key = form.key()
        with self._lock:
            kept = self._kept.get(key)
        if kept is None:
            kept = await anyio.to_thread.run_sync(self._compile, form, limiter=self._compilers)
            with self._lock:
                if len(kept[0]) <= KEPT_BYTES:
                    self._kept[key] = kept
        return kept

    def _compile(self, form: Form) -> tuple[bytes, int]:
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
        return automaton.packed(), resting_state(form, automaton)


def _refusal(fault: FormRefused) -> BadSchema:
    field = fault.where.partition("#")[0]
    if fault.tool is None:
        msg = f"Invalid schema for response_format: {fault} (at {fault.where})."
        return BadSchema(msg, field, code="invalid_json_schema")
    return BadSchema(
        f"Invalid schema for function '{fault.tool}': {fault} (at {fault.where}).", field
    )
