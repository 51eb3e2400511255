"""vLLM's engine, started and asked from our process: the only file that speaks to its front."""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from vllm import AsyncEngineArgs
from vllm import SamplingParams as VllmSamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDeadError
from vllm.v1.engine.exceptions import EngineGenerateError

from falsework.grammars.vocabulary import Vocabulary
from falsework.grammars.warm_up import warm_up
from falsework.prompts.dialects import Dialect
from falsework.prompts.tokenizers import Tokenizer, build_vocabulary, eos_token_ids
from falsework.server.engines.base import (
    Constraint,
    EngineDeadError,
    EngineStartError,
    OutputDelta,
    RequestTimings,
    SamplingParams,
    TokenLogprob,
)
from falsework.server.engines.cpu import intel_runtime
from falsework.server.engines.vllm.config import engine_args
from falsework.server.engines.vllm.environment import QUIET, inherited, openmp_variables
from falsework.server.engines.vllm.extra_args import to_extra_args
from falsework.server.engines.vllm.known_grammars import KnownGrammars
from falsework.server.engines.vllm.limits import fit_to_engine
from falsework.server.errors import BadRequestError
from falsework.server.settings import Settings

SHUTDOWN_TIMEOUT = 1
"""Seconds that the engine's processes get to end by themselves; no request is running by then."""


async def start_engine(
    settings: Settings, model: Path | str, tokenizer: Tokenizer, dialect: Dialect
) -> "VllmEngine":
    """Start vLLM on a model whose replies are in `dialect`."""
    args = engine_args(settings, str(model), dialect.markers)
    try:
        # In threads: vLLM's start would hold the loop for many seconds.
        llm, _ = await asyncio.gather(
            asyncio.to_thread(_start, args, _variables(settings)),
            asyncio.to_thread(warm_up),
        )
        await llm.collective_rpc("patch_sampling")
    except asyncio.CancelledError:
        _end_processes()  # or the process would outlive its cancelled start until that is done
        raise
    except VllmEngineDeadError as error:
        raise EngineStartError("The engine's process ended at once.") from error
    ends = eos_token_ids(llm.model_config.try_get_generation_config())
    size = llm.model_config.get_vocab_size()
    vocabulary = build_vocabulary(tokenizer, dialect.markers, ends, size)
    return VllmEngine(llm, vocabulary, keeps_markers=dialect.think is not None)


def _variables(settings: Settings) -> dict[str, str]:
    """Return what the engine's processes inherit."""
    quiet = {} if settings.log_level == "debug" else QUIET
    if not current_platform.is_cpu():
        return quiet
    return openmp_variables(os.environ, intel_runtime()) | quiet


def _start(args: AsyncEngineArgs, variables: Mapping[str, str]) -> AsyncLLM:
    """Start vLLM; raise EngineStartError where it refuses its arguments, or its process ends."""
    try:
        with inherited(variables):
            return AsyncLLM.from_engine_args(args)
    except ValidationError as error:
        reasons = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
        raise EngineStartError(f"The engine refuses this: {reasons[0]}") from error
    except (ValueError, OSError, NotImplementedError) as error:
        raise EngineStartError(f"The engine refuses this: {error}") from error
    except RuntimeError as error:  # of which vLLM only says that its process has logged the cause
        raise EngineStartError(f"The engine couldn't be started: {error}") from error


def _end_processes() -> None:
    """End the engine's processes, by the name that vLLM gives them; a start in a thread fails."""
    for child in multiprocessing.active_children():
        if child.name.startswith("EngineCore"):
            child.kill()


class VllmEngine:
    """Decodes on vLLM."""

    def __init__(self, llm: AsyncLLM, vocabulary: Vocabulary, *, keeps_markers: bool) -> None:
        self.vocabulary = vocabulary
        self.max_model_len: int = llm.model_config.max_model_len
        self._logits: int = llm.model_config.get_vocab_size()
        self._llm = llm
        self._keeps_markers = keeps_markers
        self._grammars = KnownGrammars()

    @property
    def is_dead(self) -> bool:
        """Whether the engine's process has ended."""
        return bool(self._llm.errored)

    async def check_health(self) -> None:
        """Return when the engine's process answers."""
        try:
            await self._llm.check_health()
            await self._llm.is_sleeping()  # a round trip to the engine's process
        except VllmEngineDeadError as error:
            raise _dead() from error

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        """Decode; when the caller stops listening, vLLM aborts the request."""
        # Each of several choices is a request of its own in the engine: all get the grammar.
        alone = sampling.n == 1
        sent = self._grammars.shortened(constraint) if constraint and alone else constraint
        deltas = self._decode(prompt, sampling, sent, request_id)
        first = await anext(deltas, None)
        if constraint and sent is not constraint and first and first.finish == "error":
            self._grammars.discard(constraint.key)
            await deltas.aclose()
            deltas = self._decode(prompt, sampling, constraint, f"{request_id}-again")
            first = await anext(deltas, None)
        async with aclosing(deltas):
            if first is None:
                return
            if constraint and first.finish != "error":
                self._grammars.add(constraint.key)
            yield first
            async for delta in deltas:
                yield delta

    async def _decode(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        """Send one request to the engine and yield what it answers."""
        parameters = self._parameters(sampling, constraint)
        stream = self._llm.generate({"prompt_token_ids": list(prompt)}, parameters, request_id)
        try:
            async for output in stream:
                for part in output.outputs:
                    yield self._delta(part, sampling, output)
        except VllmEngineDeadError as error:
            raise _dead() from error
        except EngineGenerateError as error:
            if isinstance(error.__cause__, VllmEngineDeadError):
                raise _dead() from error
            raise
        except ValueError as error:
            raise _refused(error) from error  # vLLM's own validation, before any token
        finally:
            await stream.aclose()

    async def close(self) -> None:
        """Stop the engine's processes."""
        self._llm.shutdown(timeout=SHUTDOWN_TIMEOUT)
        del self._llm  # otherwise it would try again while the interpreter takes itself apart

    def _parameters(
        self, sampling: SamplingParams, constraint: Constraint | None
    ) -> VllmSamplingParams:
        sampling = fit_to_engine(sampling, self._logits)
        try:
            return VllmSamplingParams(
                n=sampling.n,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=sampling.seed,
                frequency_penalty=sampling.frequency_penalty,
                presence_penalty=sampling.presence_penalty,
                repetition_penalty=sampling.repetition_penalty,
                logprobs=sampling.logprobs,
                output_kind=RequestOutputKind.DELTA,
                # Markers are special tokens in many vocabularies, and the parser needs them.
                skip_special_tokens=constraint is None and not self._keeps_markers,
                extra_args=to_extra_args(sampling, constraint),
            )
        except ValueError as error:
            raise _refused(error) from error

    def _delta(
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
        for token, logprobs in zip(part.token_ids, part.logprobs, strict=True):
            best = sorted(logprobs.items(), key=lambda item: item[1].rank or 0)
            top = tuple(self._logprob(t, entry) for t, entry in best if (entry.rank or 0) <= count)
            yield self._logprob(token, logprobs[token], top)

    def _logprob(
        self, token: int, logprob: Logprob, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        text = logprob.decoded_token or ""
        known = token < len(self.vocabulary.tokens)
        spelled = self.vocabulary.tokens[token] if known else None
        # JSON has no infinity; -9999.0 is the OpenAI API's value for a token that can't come.
        return TokenLogprob(text, max(logprob.logprob, -9999.0), spelled or text.encode(), top)


_FINISHES: dict[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


def _timings(output: RequestOutput) -> RequestTimings | None:
    stats = output.metrics
    if stats is None or not stats.first_token_ts:
        return None
    return RequestTimings(
        stats.scheduled_ts - stats.queued_ts, stats.first_token_ts - stats.scheduled_ts
    )


def _refused(error: ValueError) -> BadRequestError:
    """Return vLLM's refusal of a request as ours; it names the field where vLLM does."""
    return BadRequestError(str(error), getattr(error, "parameter", None), "invalid_value")


def _dead() -> EngineDeadError:
    return EngineDeadError("The engine has stopped.")
