"""The interface of an engine: prompt tokens in, text deltas out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from falsework.grammars import CallDecision
from falsework.server.errors import APIError


class EngineDeadError(APIError):
    """The engine's process has ended or no longer answers."""

    status = 503
    type = "server_error"
    code = "engine_unavailable"


class EngineStartError(RuntimeError):
    """The engine couldn't be started; the sentence says why, as far as that is known."""


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are sampled; field names are vLLM's, defaults the OpenAI API's."""

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
    """Alternatives to report beside each sampled token; None: no log probabilities at all."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log probability (natural, <= 0), and its alternatives, best first."""

    token: str
    logprob: float
    bytes: bytes
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class RequestTimings:
    """Seconds that a request was queued in the engine, and that its prompt took."""

    queue: float
    prefill: float


@dataclass(frozen=True)
class OutputDelta:
    """The output of one engine step for choice number `choice`; `tokens` is a count."""

    choice: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Literal["stop", "length", "error"] | None = None
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache; 0 until known."""
    timings: RequestTimings | None = None
    """On the last delta, where the engine reports them."""


@dataclass(frozen=True)
class ThinkingBudget:
    """Ends a think block after `tokens` tokens.

    From then on, as soon as the DFA is in state `resting` (between two characters of the block),
    the tokens `close` are forced.
    """

    tokens: int
    resting: int
    close: tuple[int, ...]


@dataclass(frozen=True)
class Constraint:
    """A grammar on its way to the engine, and the kind of matcher that follows it.

    `grammar`: "automaton": a serialised DFA (`grammars.dfa.DFA.to_bytes`); "llguidance": a grammar
    as llguidance reads it. `key` is its digest. The prompt ends with the forced prefix `opening`,
    whose tokens are `prefix`; decoding begins behind it. `think_block`, for llguidance: the
    serialised DFA of the think block, of which `think.resting` is a state. What is decoded begins
    with none of `barred`. `decisions`: where calls and no calls are compared, and how.
    """

    key: bytes
    grammar: bytes
    kind: Literal["automaton", "llguidance"] = "automaton"
    prefix: tuple[int, ...] = ()
    opening: str = ""
    think: ThinkingBudget | None = None
    think_block: bytes = b""
    barred: tuple[bytes, ...] = ()
    decisions: tuple[CallDecision, ...] = ()


class Engine(Protocol):
    """Decodes one model."""

    async def check_health(self) -> None:
        """Return when the engine answers; raise EngineDeadError when it doesn't."""

    def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        """Yield deltas until each of the n choices has one with `finish`; closing aborts."""

    async def close(self) -> None:
        """Stop the engine and its processes."""
