"""From a request to what the engine needs: prompt, constraint, and the reader of the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.to_thread

from falsework.grammars import CallDecision
from falsework.grammars.dfa import DEAD
from falsework.grammars.events import Tool
from falsework.grammars.output_parser import OutputParser
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.tool_choice import ToolChoice
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts import CallProfile, call_profile
from falsework.prompts.reasoning_switches import THINK_SWITCHES
from falsework.prompts.renderer import ChatTemplateError, Prompt, PromptRenderer, UnknownSwitch
from falsework.server.engines import Constraint, SamplingParams, ThinkingBudget
from falsework.server.errors import BadRequestError, ContextLengthExceeded, InvalidSchemaError
from falsework.server.generation.check_policy import DEFAULT_CHECKS, CheckPolicy
from falsework.server.generation.constraints import (
    NO_PREFIX,
    ConstraintCompiler,
    ForcedPrefix,
    Judged,
)
from falsework.server.generation.left_out_tools import without_tool
from falsework.server.generation.reply_limits import DEFAULT_LIMITS, ReplyLimits
from falsework.server.generation.request import GenerationRequest
from falsework.server.observability import warn_client

MAX_TOKENS_REDUCED = "max_tokens_reduced"
"""The code of the warning for a limit that is more than the context has left."""

LEAST_CALL_TOKENS = 256
"""A call may have so many tokens however little of the context is left."""

BUDGET_SWITCH = "thinking_budget"
"""The switch by which chat templates take tokens for the think block (Seed-OSS)."""


@dataclass(frozen=True)
class PreparedTurn:
    """One turn of a request, ready for the engine; `prompt` ends with the opening's tokens."""

    request: GenerationRequest
    prompt: tuple[int, ...]
    sampling: SamplingParams
    constraint: Constraint | None
    form: ReplyFormat
    opening: ForcedPrefix = NO_PREFIX
    checks: Mapping[str, Judged] = field(default_factory=dict)
    """What has to be judged when it is complete, see CompiledConstraint."""
    limits: ReplyLimits = DEFAULT_LIMITS

    def reader(self) -> OutputParser:
        """Return a reader for one choice, which knows the opening already."""
        return OutputParser(self.form, self.opening.text)

    def reader_behind(self, said: str) -> OutputParser:
        """Return a reader that has read the beginning of a reply."""
        reader = OutputParser(self.form, said)
        reader.feed("")
        return reader


class TurnBuilder:
    """What makes a model call tools: its prompts, its constraints, its readers."""

    def __init__(  # noqa: PLR0913 - a model, and the server's rules for its replies
        self,
        prompter: PromptRenderer,
        vocabulary: Vocabulary,
        max_model_len: int,
        *,
        think_budget: int,
        checks: CheckPolicy = DEFAULT_CHECKS,
        max_call_tokens: int = 0,
        profile: CallProfile | None = None,
        tell_schema: bool = True,
    ) -> None:
        """`max_call_tokens`: of one call, or of an answer that has a schema; 0 is no limit.

        `profile` is the dialect's unless it is given; `tell_schema`: models are told the schema of
        their answer.
        """
        self.dialect_name = prompter.dialect.name
        self.max_model_len = max_model_len
        self._prompter = prompter
        self._think_budget = think_budget
        self._max_call_tokens = max_call_tokens
        self.tell_schema = tell_schema
        self.profile = profile or call_profile(self.dialect_name)
        self.checks = checks
        self.constraints = ConstraintCompiler(vocabulary, self._encode, checks)

    async def build(self, request: GenerationRequest) -> PreparedTurn:
        """Return the turn of a request: its prompt laid out and tokenised, its grammar compiled.

        A tool that is only offered and can't be served is left out, see `without_tool`.
        Raise BadRequestError, InvalidSchemaError or ContextLengthExceeded.
        """
        while True:
            try:
                return await self._build(request)
            except InvalidSchemaError as error:
                request = without_tool(request, error)

    async def _build(self, request: GenerationRequest) -> PreparedTurn:
        prompt = await anyio.to_thread.run_sync(self.lay_out, request)
        form = self._form(request, prompt)
        sampling = self._fitted(request, len(prompt.tokens))
        constrained = form.tools or form.answer is not None or form.text or form.thinking
        if not (constrained or form.markup.answer_opening):
            return PreparedTurn(request, prompt.tokens, sampling, None, form)
        kept = await self.constraints.compiled(form, request.owner)
        opening = kept.opening
        if request.sampling.logprobs is not None or len(opening.tokens) >= sampling.max_tokens:
            opening = NO_PREFIX
        return PreparedTurn(
            request,
            prompt.tokens + opening.tokens,
            replace(sampling, max_tokens=sampling.max_tokens - len(opening.tokens)),
            replace(
                kept.constraint,
                prefix=opening.tokens,
                opening=opening.text,
                think=self._think(request, kept.resting),
                decisions=self._biased(kept.constraint.decisions, request),
            ),
            form,
            opening,
            kept.checks,
            self._limits(request, len(prompt.tokens)),
        )

    def lay_out(self, request: GenerationRequest) -> Prompt:
        """Return the prompt without its opening; raise BadRequestError for what it can't show."""
        tools = request.tools if request.choice.mode != "none" else ()
        try:
            return self._prompter.render(
                request.messages,
                tools,
                parallel=request.choice.parallel,
                think=request.think_budget != 0,
                effort=request.effort,
                switches=self._switches(request),
                answer=self._answer(request),
            )
        except UnknownSwitch as error:
            param = f"chat_template_kwargs.{error.name[:100]}"
            raise BadRequestError(str(error), param, "unsupported_parameter") from error
        except ChatTemplateError as error:
            raise BadRequestError(str(error), request.params.messages) from error

    def _answer(self, request: GenerationRequest) -> Mapping[str, Any] | None:
        """Return the schema that the model is told of its answer."""
        schema = request.response_schema
        if not self.tell_schema or not isinstance(schema, Mapping):
            return None
        about = {"description": request.response_description}
        return {**(about if request.response_description else {}), **schema}

    def _switches(self, request: GenerationRequest) -> Mapping[str, Any]:
        """Return the switches of the chat template that the request sets, or its budget does.

        Thinking is off anyway where a template knows no switch for it.
        """
        known = self._prompter.template.switches
        given = {
            name: value
            for name, value in request.template_switches.items()
            if name in known or name not in THINK_SWITCHES or value is not False
        }
        if request.think_budget is None or BUDGET_SWITCH not in known:
            return given
        return {BUDGET_SWITCH: request.think_budget, **given}

    async def warm_up(self) -> None:
        """Compute what all replies with tools share, before the first request needs it."""
        dialect = self._prompter.dialect
        tool, auto = Tool("a", "", {"type": "object"}), ToolChoice("auto")
        for think in {dialect.think, None}:
            await self.constraints.compiled(ReplyFormat(dialect.markup, (tool,), auto, think=think))

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
            request.text_grammar,
            request.response_strict,
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

    def _biased(
        self, decisions: Sequence[CallDecision], request: GenerationRequest
    ) -> tuple[CallDecision, ...]:
        profile, given = self.profile, request.tool_call_bias
        answered = bool(request.messages) and request.messages[-1].role == "tool"
        first = profile.after_result_bias if answered else profile.tool_call_bias
        biases = {
            "first": first if given is None else given,
            "another": 0.0 if request.several_calls else profile.another_call_bias,
        }
        return tuple(replace(one, bias=biases[one.kind]) for one in decisions)

    def _limits(self, request: GenerationRequest, prompt: int) -> ReplyLimits:
        """Return what the reply may hold.

        Where the client sets no limit of tokens, one call gets half of what is left at most.
        """
        tokens = self._max_call_tokens
        if request.sampling.max_tokens:
            tokens = 0
        elif tokens:
            tokens = min(tokens, max((self.max_model_len - prompt) // 2, LEAST_CALL_TOKENS))
        return ReplyLimits(request.max_parallel_calls, tokens, request.repeated_calls)

    def _fitted(self, request: GenerationRequest, prompt: int) -> SamplingParams:
        """Return the sampling, its limit of tokens within what the prompt leaves of the context.

        Many clients ask for the same large number always: it is an upper bound, so less will do.
        """
        left = self.max_model_len - prompt
        most, param = request.sampling.max_tokens, request.params.messages
        if left < 1:
            tokens = f"{prompt + most} tokens ({prompt} in the {param}, {most} in the completion)"
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens. "
                f"However, you requested {tokens}. Please shorten the {param} or the completion."
            )
            raise ContextLengthExceeded(message, param)
        if most > left:
            message = (
                f"The completion may have {left} tokens, not {most}: the {param} take {prompt} of "
                f"this model's {self.max_model_len}."
            )
            warn_client(MAX_TOKENS_REDUCED, message, request.params.max_tokens)
        return replace(request.sampling, max_tokens=min(most, left) or left)

    def _encode(self, text: str) -> list[int]:
        return self._prompter.tokenizer.encode(text, add_special_tokens=False)
