"""vLLM's engine in our process, with our scheduler: the only file that speaks to vLLM's front."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from vllm import SamplingParams as VllmSamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
from vllm.v1.engine.exceptions import EngineGenerateError

from falsework.grammars.dfa import START, compile_dfa, from_bytes
from falsework.grammars.expressions import literal
from falsework.grammars.masks import TokenMasks
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.detection import detect_renderer
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import build_vocabulary, eos_token_ids, load_tokenizer
from falsework.server.engines.base import (
    BIASES_ARG,
    CONSTRAINT_ARG,
    Constraint,
    EngineDeadError,
    OutputDelta,
    RequestTimings,
    SamplingParams,
    TokenLogprob,
)
from falsework.server.engines.vllm.config import engine_args
from falsework.server.errors import BadRequestError
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings


async def start_engine(settings: Settings, model: str | Path) -> tuple["VllmEngine", TurnBuilder]:
    """Start the engine for a model, and what lays out its prompts and constraints."""
    tokenizer = load_tokenizer(str(model), settings.chat_template)
    prompter = detect_renderer(tokenizer, settings.dialect)
    markers = prompter.dialect.markers
    warmed = asyncio.create_task(asyncio.to_thread(_warm, prompter))
    await asyncio.sleep(0)  # lets that thread begin: vLLM's start holds the loop until it is done
    llm = AsyncLLM.from_engine_args(engine_args(settings, str(model), markers))
    await llm.collective_rpc("install_logits_processors")
    await warmed
    ends = eos_token_ids(llm.model_config.try_get_generation_config())
    vocabulary = build_vocabulary(tokenizer, markers, ends, llm.model_config.get_vocab_size())
    scaffold = TurnBuilder(
        prompter, vocabulary, llm.model_config.max_model_len, think_budget=settings.think_budget
    )
    return VllmEngine(llm, vocabulary, keeps_markers=prompter.dialect.think is not None), scaffold


def _warm(prompter: PromptRenderer) -> None:
    """Compile what numba has to, seconds at the first start, or load it, for us and the engine.

    What prompts need is made as well: the first request shouldn't wait for it.
    """
    prompter.prepare()
    vocabulary = Vocabulary([b"o", b"k", b"ok", None], [3])
    automaton = compile_dfa(literal("ok"), vocabulary.alphabet)
    TokenMasks(from_bytes(automaton.to_bytes()), vocabulary, 1).mask_for(START)


SHUTDOWN_TIMEOUT = 1
"""How long the engine's processes may take to end by themselves; no request is running by then."""


class VllmEngine:
    """Decodes on vLLM."""

    def __init__(self, llm: AsyncLLM, vocabulary: Vocabulary, *, keeps_markers: bool) -> None:
        self._llm = llm
        self._vocabulary = vocabulary
        self._keeps_markers = keeps_markers

    async def check_health(self) -> None:
        """Return when the engine's process answers."""
        try:
            await self._llm.check_health()
            await self._llm.is_sleeping()  # a round trip to the engine's process
        except VllmEngineDeadError as fault:
            raise _gone() from fault

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncIterator[OutputDelta]:
        """Decode; when the caller stops listening, vLLM aborts the request."""
        try:
            parameters = self._parameters(sampling, constraint)
        except ValueError as fault:
            raise BadRequestError(str(fault)) from fault
        stream = self._llm.generate({"prompt_token_ids": list(prompt)}, parameters, request_id)
        try:
            async for output in stream:
                for part in output.outputs:
                    yield self._piece(part, sampling, output)
        except VllmEngineDeadError as fault:
            raise _gone() from fault
        except EngineGenerateError as fault:
            if isinstance(fault.__cause__, VllmEngineDeadError):
                raise _gone() from fault
            raise
        except ValueError as fault:
            # vLLM's own validation, before any token: a token number beyond the vocabulary, …
            raise BadRequestError(str(fault)) from fault
        finally:
            await stream.aclose()

    async def close(self) -> None:
        """Stop the engine's processes."""
        self._llm.shutdown(timeout=SHUTDOWN_TIMEOUT)
        del self._llm  # otherwise it would try again while the interpreter takes itself apart

    def _parameters(
        self, sampling: SamplingParams, constraint: Constraint | None
    ) -> VllmSamplingParams:
        extra: dict[str, Any] = {}
        if constraint:
            think = constraint.think
            budget = [think.tokens, think.resting, list(think.close)] if think else None
            extra[CONSTRAINT_ARG] = [constraint.key, constraint.automaton, constraint.start, budget]
        if sampling.min_p or sampling.logit_bias:
            biases = {str(token): bias for token, bias in (sampling.logit_bias or {}).items()}
            extra[BIASES_ARG] = {"min_p": sampling.min_p, "logit_bias": biases}
        # vLLM refuses several greedy choices; the best token alone is the same thing.
        several_greedy = sampling.n > 1 and sampling.temperature == 0
        return VllmSamplingParams(
            n=sampling.n,
            max_tokens=sampling.max_tokens,
            temperature=1 if several_greedy else sampling.temperature,
            top_p=sampling.top_p,
            top_k=1 if several_greedy else sampling.top_k,
            seed=sampling.seed,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logprobs=sampling.logprobs,
            output_kind=RequestOutputKind.DELTA,
            # Markers are special tokens in many vocabularies, and the reader needs to see them.
            skip_special_tokens=constraint is None and not self._keeps_markers,
            extra_args=extra or None,
        )

    def _piece(
        self, part: CompletionOutput, sampling: SamplingParams, output: RequestOutput
    ) -> OutputDelta:
        finish = part.finish_reason
        return OutputDelta(
            choice=part.index,
            text=part.text,
            tokens=len(part.token_ids),
            logprobs=tuple(self._logprobs(part, sampling.logprobs or 0)),
            finish=None if finish is None else _FINISHES.get(finish, "error"),
            cached_tokens=output.num_cached_tokens or 0,
            timings=_timings(output) if finish else None,
        )

    def _logprobs(self, part: CompletionOutput, count: int) -> Iterable[TokenLogprob]:
        if part.logprobs is None:
            return
        for token, said in zip(part.token_ids, part.logprobs, strict=True):
            best = sorted(said.items(), key=lambda one: one[1].rank or 0)
            top = tuple(self._logprob(t, one) for t, one in best if (one.rank or 0) <= count)
            yield self._logprob(token, said[token], top)

    def _logprob(
        self, token: int, said: Logprob, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        text = said.decoded_token or ""
        known = token < len(self._vocabulary.tokens)
        spelled = self._vocabulary.tokens[token] if known else None
        # JSON has no infinity; -9999.0 is what the OpenAI API says for a token that can't come.
        return TokenLogprob(text, max(said.logprob, -9999.0), spelled or text.encode(), top)


_FINISHES: dict[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


def _timings(output: RequestOutput) -> RequestTimings | None:
    stats = output.metrics
    if stats is None or not stats.first_token_ts:
        return None
    return RequestTimings(
        stats.scheduled_ts - stats.queued_ts, stats.first_token_ts - stats.scheduled_ts
    )


def _gone() -> EngineDeadError:
    return EngineDeadError("The engine has stopped; the server must be restarted.")
