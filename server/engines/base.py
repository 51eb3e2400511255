"""What the server asks of an engine: tokens in, pieces of text out."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from falsework.grammars.dfa import START
from falsework.server.engines.matcher import ThinkingBudget
from falsework.server.errors import APIError

CONSTRAINT_ARG = "falsework_constraint"
"""Where a Constraint's fields travel in vLLM's SamplingParams.extra_args, in their order."""
BIASES_ARG = "falsework_biases"
"""The same for {"min_p": …, "logit_bias": {token as text: bias}}, see `sampling`."""


class EngineDeadError(APIError):
    """The engine no longer answers; the process has to be restarted."""

    status = 503
    type = "server_error"
    code = "engine_unavailable"


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn; the fields are vLLM's, the defaults OpenAI's."""

    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    logprobs: int | None = None
    """None: no logprobs; otherwise how many alternatives to report beside each sampled token."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log probability, and its alternatives (best first)."""

    token: str
    logprob: float
    bytes: bytes
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class RequestTimings:
    """How long a request waited in the engine, and how long its prompt took, in seconds."""

    queue: float
    prefill: float


@dataclass(frozen=True)
class OutputDelta:
    """What one engine step adds to choice number `choice`."""

    choice: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length", "error"] | None = None
    cached_tokens: int = 0
    """How many prompt tokens came from the prefix cache (0 until known)."""
    timings: RequestTimings | None = None
    """On the last piece, where the engine knows."""


@dataclass(frozen=True)
class Constraint:
    """A compiled constraint on its way to the engine.

    `automaton` is packed (see `grammars.automata`), `key` its digest. The prompt ends with the
    reply's `opening`; what is decoded begins behind it, in state `start`.
    """

    key: bytes
    automaton: bytes
    start: int = START
    opening: str = ""
    think: ThinkingBudget | None = None


class Engine(Protocol):
    """An engine that decodes one model."""

    async def check_health(self) -> None:
        """Return when the engine answers; raise EngineGone when it doesn't."""

    def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncIterator[OutputDelta]:
        """Decode until each of the n choices has a piece with `finish`; closing it aborts."""

    async def close(self) -> None:
        """Stop the engine and its processes."""
