"""vLLM's side of structured output: a bitmask, and nothing to compile."""

import torch
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
)

from falsework.grammars.vocabulary import mask_width


class Backend(StructuredOutputBackend):  # type: ignore[misc]
    """Allocates the bitmask, and nothing else: our constraints come compiled."""

    def compile_grammar(self, *_: object, **__: object) -> StructuredOutputGrammar:
        """Raise: nothing is compiled inside the engine."""
        msg = "constraints are compiled before they reach the engine"
        raise NotImplementedError(msg)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """Return a bitmask of that many rows."""
        return torch.full((max_num_seqs, mask_width(self.vocab_size)), -1, dtype=torch.int32)

    def destroy(self) -> None:
        """Do nothing: there is nothing to clean up."""
