"""vLLM's scheduler, with our constraints: runs in the engine's own process.

Rule: nothing of ours raises in here. An exception inside the scheduler ends the engine for every
request; a constraint that can't be read ends its own request with an error.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.scheduler import Scheduler as VllmScheduler
from vllm.v1.outputs import DraftTokenIds
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
)
from vllm.v1.structured_output.request import StructuredOutputRequest

from falsework.grammars.dfa import from_bytes
from falsework.grammars.jump_forward import Encode
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.tokenizers import build_vocabulary, eos_token_ids
from falsework.server.engines.base import BIASES_ARG, CONSTRAINT_ARG
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher, ThinkingBudget
from falsework.server.engines.vllm.prompt_lookup import PromptLookupDrafter

_T = TypeVar("_T")

log = init_logger(__name__)

MAX_CACHED_GRAMMARS = 64
MAX_CACHED_BYTES = 256 * 2**20
"""Of tables, beside what running requests hold; each automaton's masks have their own bound."""


class Grammar(StructuredOutputGrammar):  # type: ignore[misc]
    """A decoder, behind vLLM's interface; where it fails, its request ends with an error."""

    def __init__(self, decoder: GrammarMatcher, copies: PromptLookupDrafter | None) -> None:
        self._decoder = decoder
        self._copies = copies
        self._broken = False

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:  # noqa: ARG002
        """Advance over tokens; False, which ends the request, when one of them can't be said."""
        return self._guarded(lambda: all(map(self._decoder.accept_token, tokens)), instead=False)

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """Return the longest prefix that can be said, without advancing."""
        return self._guarded(lambda: self._sayable(tokens), instead=[])

    def rollback(self, num_tokens: int) -> None:
        """Go back over the last tokens."""
        self._guarded(lambda: self._decoder.rollback(num_tokens), instead=None)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Write which tokens may follow into one row."""
        row = bitmask[batch_index].numpy()
        mask = self._guarded(self._decoder.token_bitmask, instead=None)
        row[:] = -1 if mask is None else mask

    def is_terminated(self) -> bool:
        """Tell whether the reply has ended."""
        return self._decoder.is_terminated

    def reset(self) -> None:
        """Go back to the beginning."""
        self._guarded(self._decoder.reset, instead=None)

    def drafts(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return up to `most` tokens that have to come next, and likely ones behind them.

        `tokens` are prompt and reply so far.
        """
        return self._guarded(lambda: self._drafts(tokens, most), instead=[])

    def _drafts(self, tokens: Sequence[int], most: int) -> list[int]:
        draft = list(self._decoder.forced_tokens[:most])
        if self._copies is None:
            return draft
        self._copies.observe(tokens)
        advanced = self._advance(draft)
        while len(draft) < most and not self._decoder.is_terminated:
            likely = self._likely(self._copies, draft, most - len(draft))
            if not likely:
                break
            draft += likely
            advanced += self._advance(likely)
            certain = self._decoder.forced_tokens[: most - len(draft)]  # if what is likely is right
            draft += certain
            advanced += self._advance(certain)
        self._decoder.rollback(advanced)
        return draft

    def _likely(self, copies: PromptLookupDrafter, draft: Sequence[int], most: int) -> list[int]:
        """Return up to `most` tokens that may well follow `draft`, behind which the decoder is."""
        place, known = (
            self._decoder.position,
            self._sayable(list(self._decoder.tentative_token[:most])),
        )
        if known and (likely := copies.propose_open_end(draft, place, known)):
            return likely
        return copies.propose(
            draft, most, place, self._sayable, chosen=self._decoder.last_was_sampled
        )

    def _advance(self, tokens: Sequence[int]) -> int:
        """Advance over tokens that can be said; return how many they are."""
        return sum(map(self._decoder.accept_token, tokens))

    def _sayable(self, tokens: list[int]) -> list[int]:
        count = 0
        while count < len(tokens) and self._decoder.accept_token(tokens[count]):
            count += 1
        self._decoder.rollback(count)
        return tokens[:count]

    def _guarded(self, work: Callable[[], _T], *, instead: _T) -> _T:
        """Return what `work` does; once it has failed, never anything but `instead`."""
        if self._broken:
            return instead
        try:
            return work()
        except Exception:
            self._broken = True
            log.exception("a constraint failed; its request ends with an error")
            return instead


class Backend(StructuredOutputBackend):  # type: ignore[misc]
    """Only there to allocate the bitmask: our constraints come compiled."""

    def compile_grammar(self, *_: object, **__: object) -> StructuredOutputGrammar:
        """Refuse: nothing is compiled inside the engine."""
        msg = "constraints are compiled before they reach the engine"
        raise NotImplementedError(msg)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """Return a bitmask of that many rows."""
        return torch.full((max_num_seqs, bitmask_width(self.vocab_size)), -1, dtype=torch.int32)

    def destroy(self) -> None:
        """Nothing to clean up."""


class ConstrainedScheduler(VllmScheduler):  # type: ignore[misc]
    """vLLM's scheduler, which also reads each request's constraint and drafts what it forces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config: VllmConfig = self.vllm_config
        tokenizer = cached_tokenizer_from_config(config.model_config)
        size = config.model_config.get_vocab_size()
        self.structured_output_manager.backend = Backend(config, tokenizer, size)
        ends = eos_token_ids(config.model_config.try_get_generation_config())
        markers = config.additional_config["markers"]
        self._copying: bool = config.additional_config["copy_drafts"] and self.num_spec_tokens > 0
        # This table keeps vLLM from padding a request that has one token left to compute (its
        # prompt was in the prefix cache) with rejected drafts: slower, and another random draw.
        most = self.max_num_running_reqs
        self.dynamic_sd_lookup = (
            [self.num_spec_tokens] * (most + 1) if self.num_spec_tokens else None
        )
        self._vocabulary: Vocabulary = build_vocabulary(tokenizer, markers, ends, size)
        self._encode: Encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        self._width = bitmask_width(size)
        self._kept: OrderedDict[bytes, CompiledGrammar] = OrderedDict()
        self._kept_bytes = 0
        self._free: dict[str, PromptLookupDrafter] = {}

    def add_request(self, request: Request) -> None:
        """Take a request in, with the constraint that it carries."""
        extra = request.sampling_params.extra_args if request.sampling_params else None
        if extra and CONSTRAINT_ARG in extra and request.request_id not in self.requests:
            constrained = StructuredOutputRequest(params=None)
            # Taken out: it may have megabytes, and is sent on to every worker otherwise.
            constraint = extra.pop(CONSTRAINT_ARG)
            constrained.grammar = self._grammar(*constraint, copying=BIASES_ARG not in extra)
            request.structured_output_request = constrained
            request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        super().add_request(request)

    def update_draft_token_ids(self, draft_token_ids: DraftTokenIds) -> None:
        """Draft for each request what its constraint forces next, or what is likely."""
        # All running requests fit into a step, so that drafts don't make anybody wait.
        share = self.max_num_scheduled_tokens // max(1, len(self.running))
        most = min(self.num_spec_tokens, max(0, share - 1))
        for request_id in draft_token_ids.req_ids:
            request = self.requests.get(request_id)
            if request is None or request.is_finished():
                continue
            unready = request.is_prefill_chunk or most == 0
            request.spec_token_ids = [] if unready else self._drafts(request, most)

    def _drafts(self, request: Request, most: int) -> list[int]:
        held = request.structured_output_request
        if held is None:
            return self._copied(request, most)
        grammar = held.grammar
        if not isinstance(grammar, Grammar):
            return []
        return grammar.drafts(request.all_token_ids, most)

    def _copied(self, request: Request, most: int) -> list[int]:
        """Return likely text of a reply without constraint."""
        biased = BIASES_ARG in (
            (request.sampling_params and request.sampling_params.extra_args) or ()
        )
        if biased or not self._copying:
            return []
        copies = self._free.get(request.request_id)
        if copies is None:
            for ended in self._free.keys() - self.requests.keys():
                del self._free[ended]
            copies = self._free[request.request_id] = PromptLookupDrafter()
        copies.observe(request.all_token_ids)
        return copies.propose([], most)

    def _grammar(
        self,
        key: bytes,
        automaton: bytes,
        start: int,
        budget: Sequence[Any] | None,
        *,
        copying: bool,
    ) -> Grammar | Future[StructuredOutputGrammar]:
        try:
            think = ThinkingBudget(budget[0], budget[1], tuple(budget[2])) if budget else None
            copies = PromptLookupDrafter() if self._copying and copying else None
            return Grammar(GrammarMatcher(self._constrainer(key, automaton), think, start), copies)
        except Exception as fault:  # noqa: BLE001 - becomes this request's own error
            broken: Future[StructuredOutputGrammar] = Future()
            broken.set_exception(fault)
            return broken

    def _constrainer(self, key: bytes, packed: bytes) -> CompiledGrammar:
        """Return what all replies under one automaton share."""
        kept = self._kept.get(key)
        if kept is None:
            kept = CompiledGrammar(from_bytes(packed), self._vocabulary, self._width, self._encode)
            self._kept[key] = kept
            self._kept_bytes += kept.automaton.table.nbytes
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_CACHED_GRAMMARS or self._kept_bytes > MAX_CACHED_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.automaton.table.nbytes
        return kept


def bitmask_width(tokens: int) -> int:
    """Return how many words of 32 bits a mask over so many tokens has."""
    return (tokens + 31) // 32
