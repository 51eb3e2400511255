"""Log probabilities of tokens as OpenAI's API shows them."""

from falsework.server.engines import TokenLogprob
from falsework.server.types import Json


def logprob_object(token: TokenLogprob) -> Json:
    """Return a token's log probability, with those of its alternatives."""
    return {**_fields(token), "top_logprobs": [_fields(other) for other in token.top]}


def _fields(token: TokenLogprob) -> Json:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}
