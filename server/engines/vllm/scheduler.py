"""vLLM's scheduler, with our constraints: runs in the engine's own process.

Rule: nothing of ours raises here. An exception inside the scheduler ends the engine for every
request; a constraint that can't be read ends its own request with an error.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler as VllmScheduler
from vllm.v1.outputs import DraftTokenIds
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar
from vllm.v1.structured_output.request import StructuredOutputRequest

from falsework.grammars.dfa import from_bytes
from falsework.grammars.jump_forward import Encode
from falsework.grammars.llguidance_grammar import make_tokenizer
from falsework.grammars.vocabulary import Vocabulary, mask_width
from falsework.prompts.tokenizers import build_vocabulary, eos_token_ids
from falsework.server.engines.barred_matcher import BarredMatcher
from falsework.server.engines.base import Constraint
from falsework.server.engines.llguidance_matcher import LlguidanceGrammar, LlguidanceMatcher
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher
from falsework.server.engines.vllm import patches
from falsework.server.engines.vllm.backend import Backend
from falsework.server.engines.vllm.call_decisions import NoteDecision, StepDecisions
from falsework.server.engines.vllm.extra_args import (
    has_biases,
    has_constraint,
    read_biases,
    take_constraint,
)
from falsework.server.engines.vllm.known_grammars import MAX_KNOWN
from falsework.server.engines.vllm.limits import check_token_ids
from falsework.server.engines.vllm.parent_watch import exit_with_parent
from falsework.server.engines.vllm.prompt_lookup import DraftersByRequest, PromptLookupDrafter

_T = TypeVar("_T")
Matcher = GrammarMatcher | LlguidanceMatcher | BarredMatcher

log = init_logger(__name__)

MAX_CACHED_BYTES = 256 * 2**20
"""Of DFA tables, beside those that running requests hold; masks have a bound of their own."""


class Grammar(StructuredOutputGrammar):  # type: ignore[misc]
    """A matcher behind vLLM's interface; where it fails, its request ends with an error."""

    def __init__(
        self,
        matcher: Matcher,
        lookup: PromptLookupDrafter | None,
        note: NoteDecision | None = None,
    ) -> None:
        self._matcher = matcher
        self._lookup = lookup
        self._note = note
        self._broken = False

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:  # noqa: ARG002
        """Advance over tokens; False, which ends the request, when one of them isn't allowed."""
        return self._guarded(lambda: all(map(self._matcher.accept_token, tokens)), instead=False)

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """Return the longest prefix that is allowed, without advancing."""
        return self._guarded(lambda: self._allowed_prefix(tokens), instead=[])

    def rollback(self, num_tokens: int) -> None:
        """Go back over the last tokens."""
        self._guarded(lambda: self._matcher.rollback(num_tokens), instead=None)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Write the mask of the next token into one row; on failure the mask allows everything."""
        row = bitmask[batch_index].numpy()
        mask = self._guarded(self._matcher.token_bitmask, instead=None)
        row[:] = -1 if mask is None else mask
        decision = self._guarded(lambda: self._matcher.decision, instead=None)
        if decision and self._note:
            self._note(batch_index, decision)

    def is_terminated(self) -> bool:
        """Tell whether the reply has ended."""
        return self._matcher.is_terminated

    def reset(self) -> None:
        """Go back to the beginning."""
        self._guarded(self._matcher.reset, instead=None)

    def drafts(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return up to `limit` tokens that are forced next, and likely ones behind them.

        `tokens` are prompt and reply so far.
        """
        return self._guarded(lambda: self._drafts(tokens, limit), instead=[])

    def _drafts(self, tokens: Sequence[int], limit: int) -> list[int]:
        draft = list(self._matcher.forced_tokens[:limit])
        if self._lookup is None:
            return draft
        self._lookup.observe(tokens)
        advanced = self._advance(draft)
        while len(draft) < limit and not self._matcher.is_terminated:
            likely = self._likely(self._lookup, draft, limit - len(draft))
            if not likely:
                break
            draft += likely
            advanced += self._advance(likely)
            forced = self._matcher.forced_tokens[: limit - len(draft)]  # if the likely are right
            draft += forced
            advanced += self._advance(forced)
        self._matcher.rollback(advanced)
        return draft

    def _likely(self, lookup: PromptLookupDrafter, draft: Sequence[int], limit: int) -> list[int]:
        """Return up to `limit` likely tokens behind `draft`, which the matcher has accepted."""
        position = self._matcher.position
        tentative = self._allowed_prefix(list(self._matcher.tentative_token[:limit]))
        if tentative and (likely := lookup.propose_open_end(draft, position, tentative)):
            return likely
        return lookup.propose(
            draft, limit, position, self._allowed_prefix, chosen=self._matcher.last_was_sampled
        )

    def _advance(self, tokens: Sequence[int]) -> int:
        """Advance over the tokens that are allowed; return their count."""
        return sum(map(self._matcher.accept_token, tokens))

    def _allowed_prefix(self, tokens: list[int]) -> list[int]:
        count = 0
        while count < len(tokens) and self._matcher.accept_token(tokens[count]):
            count += 1
        self._matcher.rollback(count)
        return tokens[:count]

    def _guarded(self, work: Callable[[], _T], *, instead: _T) -> _T:
        """Return the result of `work`; after a failure always `instead`."""
        if self._broken:
            return instead
        try:
            return work()
        except Exception:
            self._broken = True
            log.exception("a constraint failed; its request ends with an error")
            return instead


class ConstrainedScheduler(VllmScheduler):  # type: ignore[misc]
    """vLLM's scheduler, which also reads each request's constraint and drafts what it forces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        exit_with_parent()
        config: VllmConfig = self.vllm_config
        tokenizer = cached_tokenizer_from_config(config.model_config)
        size = config.model_config.get_vocab_size()
        self.structured_output_manager.backend = Backend(config, tokenizer, size)
        ends = eos_token_ids(config.model_config.try_get_generation_config())
        markers = config.additional_config["markers"]
        self._uses_lookup: bool = (
            config.additional_config["copy_drafts"] and self.num_spec_tokens > 0
        )
        patches.never_pad_drafts(self)
        self._vocabulary: Vocabulary = build_vocabulary(tokenizer, markers, ends, size)
        self._encode: Encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        self._vocab_size = size
        self._width = mask_width(size)
        self._tokenizer = make_tokenizer(
            self._vocabulary.tokens, self._vocabulary.ends, self._encode
        )
        self._compiler = ThreadPoolExecutor(1, "compiles grammars")
        self._cache: OrderedDict[bytes, CompiledGrammar | LlguidanceGrammar] = OrderedDict()
        self._cached_bytes = 0
        self._cache_lock = threading.Lock()
        self._step = StepDecisions()
        self._lookups = DraftersByRequest()  # of requests without a constraint

    def add_request(self, request: Request) -> None:
        """Add a request, with the constraint that it carries.

        One that can't be sampled is given a grammar that has failed, so that it ends with an error.
        """
        params = request.sampling_params
        if params and params.extra_args and request.request_id not in self.requests:
            grammar = self._grammar(params)
            if grammar is not None:
                structured = StructuredOutputRequest(params=None)
                structured.grammar = grammar
                request.structured_output_request = structured
                request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        super().add_request(request)

    def get_grammar_bitmask(self, scheduler_output: SchedulerOutput) -> GrammarOutput | None:
        """Return the masks of a step, and beside them its decisions between a call and none."""
        self._step.take()
        output = super().get_grammar_bitmask(scheduler_output)
        if output is not None:
            output.call_decisions = self._step.take()
        return output

    def update_draft_token_ids(self, draft_token_ids: DraftTokenIds) -> None:
        """Draft for each request the tokens that its constraint forces next, or likely ones."""
        # All running requests fit into a step with their drafts, so that none has to wait.
        share = self.max_num_scheduled_tokens // max(1, len(self.running))
        limit = min(self.num_spec_tokens, max(0, share - 1))
        for request_id in draft_token_ids.req_ids:
            request = self.requests.get(request_id)
            if request is None or request.is_finished():
                continue
            unready = request.is_prefill_chunk or limit == 0
            request.spec_token_ids = [] if unready else self._drafts(request, limit)

    def _drafts(self, request: Request, limit: int) -> list[int]:
        """Return the drafts of a request; none where they can't be made."""
        structured = request.structured_output_request
        if structured is None:
            try:
                return self._unconstrained_drafts(request, limit)
            except Exception:
                log.exception("likely tokens couldn't be drafted")
                return []
        grammar = structured.grammar
        if not isinstance(grammar, Grammar):
            return []
        return grammar.drafts(request.all_token_ids, limit)

    def _unconstrained_drafts(self, request: Request, limit: int) -> list[int]:
        """Return likely tokens of a reply without constraint."""
        if has_biases(request.sampling_params) or not self._uses_lookup:
            return []
        lookup = self._lookups.of(request.request_id, self.requests)
        lookup.observe(request.all_token_ids)
        return lookup.propose([], limit)

    def _grammar(self, params: SamplingParams) -> Grammar | Future[StructuredOutputGrammar] | None:
        """Return the grammar of a request, if any, or a future: being compiled, or failed."""
        try:
            biases = read_biases(params)
            if biases is not None:
                check_token_ids(biases.logit_bias, self._vocab_size)
            if not has_constraint(params):
                return None
            constraint = take_constraint(params)
            lookup = PromptLookupDrafter() if self._uses_lookup and biases is None else None
            note = self._step.note_at(0.0 if params.top_k == 1 else params.temperature)
            if constraint.kind == "llguidance" and constraint.key not in self._cache:
                # Some take a second; llguidance lets other threads run meanwhile.
                return self._compiler.submit(
                    lambda: Grammar(self._matcher(constraint), lookup, note)
                )
            return Grammar(self._matcher(constraint), lookup, note)
        except Exception as error:  # noqa: BLE001 - becomes this request's own error
            params.extra_args = None  # what is wrong with it must not reach the worker
            failed: Future[StructuredOutputGrammar] = Future()
            failed.set_exception(error)
            return failed

    def _matcher(self, constraint: Constraint) -> Matcher:
        matcher = self._unbarred_matcher(constraint)
        barred = constraint.barred
        return BarredMatcher(matcher, barred, self._vocabulary) if barred else matcher

    def _unbarred_matcher(self, constraint: Constraint) -> GrammarMatcher | LlguidanceMatcher:
        compiled, where = self._compiled(constraint), (constraint.prefix, constraint.decisions)
        if isinstance(compiled, CompiledGrammar):
            return GrammarMatcher(compiled, constraint.think, *where)
        block = from_bytes(constraint.think_block) if constraint.think_block else None
        return LlguidanceMatcher(compiled, constraint.think, block, *where)

    def _compiled(self, constraint: Constraint) -> CompiledGrammar | LlguidanceGrammar:
        """Return what all replies under one grammar share, cached by its digest."""
        with self._cache_lock:
            compiled = self._cache.get(constraint.key)
        if compiled is None:
            compiled = self._compile(constraint)
        with self._cache_lock:
            if constraint.key not in self._cache:
                self._cache[constraint.key] = compiled
                self._cached_bytes += compiled.nbytes
            self._cache.move_to_end(constraint.key)
            while len(self._cache) > MAX_KNOWN or self._cached_bytes > MAX_CACHED_BYTES:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= oldest.nbytes
        return compiled

    def _compile(self, constraint: Constraint) -> CompiledGrammar | LlguidanceGrammar:
        shared = (self._vocabulary, self._width, self._encode)
        if constraint.kind == "automaton":
            return CompiledGrammar(from_bytes(constraint.grammar), *shared, constraint.decisions)
        return LlguidanceGrammar(constraint.grammar.decode(), self._tokenizer, *shared)
