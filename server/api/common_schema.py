"""Fields that every protocol has, and what they mean for the model."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from falsework.server.api.validation import WireModel
from falsework.server.engines import SamplingParams
from falsework.server.errors import BadRequestError, InvalidSchemaError, unsupported_value
from falsework.server.settings import Settings

REASONING_EFFORT_TOKENS: Mapping[str, int | None] = {
    "none": 0,
    "minimal": 128,
    "low": 512,
    "medium": None,
    "high": 4096,
    "xhigh": 8192,
    "max": 16384,
}
"""A reasoning effort in tokens of the think block; None is the server's own budget."""


def _no_limit(limit: object) -> object:
    return None if limit == -1 and not isinstance(limit, bool) else limit


TokenLimit = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_no_limit)]
"""The tokens that a reply may have; -1, as many clients write it, is no limit."""


LEAST_TOP_P = 1e-6
"""What a top_p of 0 means: the likeliest token alone, however unlikely it is."""


class CommonFields(WireModel):
    """The fields of a request that all protocols spell alike."""

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    parallel_tool_calls: bool | None = None
    max_parallel_calls: int | None = Field(default=None, ge=1)
    tool_call_bias: float | None = Field(default=None, ge=-100, le=100)
    stream: bool | None = None
    metadata: (
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None
    ) = Field(default=None, max_length=16)


def sampling_params(
    request: CommonFields, max_tokens: int, logprobs: int | None, **others: Any
) -> SamplingParams:
    """Return the sampling of a request; `others` are fields of one protocol, None where absent."""
    fields = {
        "temperature": request.temperature,
        "top_p": None if request.top_p is None else max(request.top_p, LEAST_TOP_P),
        "seed": request.seed,
        **others,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return SamplingParams(max_tokens=max_tokens, logprobs=logprobs, **given)


def max_parallel_calls(request: CommonFields, limits: Settings) -> int:
    """Return how many calls one reply may hold; raise BadRequestError above the server's limit."""
    given = request.max_parallel_calls or limits.max_parallel_calls
    if given > limits.max_parallel_calls:
        raise BadRequestError(
            f"Invalid 'max_parallel_calls': this server allows at most {limits.max_parallel_calls} "
            "calls in a reply.",
            "max_parallel_calls",
            "integer_above_max_value",
        )
    return given


def repeated_calls(request: CommonFields, limits: Settings) -> bool:
    """Tell whether a reply may hold two calls that are alike to the letter."""
    return request.parallel_tool_calls is True or limits.repeated_calls == "allow"


def think_budget(effort: str | None, param: str) -> int | None:
    """Return the tokens that an effort allows the think block; None leaves it to the server."""
    if effort is None:
        return None
    if effort not in REASONING_EFFORT_TOKENS:
        raise unsupported_value(effort, REASONING_EFFORT_TOKENS, param)
    return REASONING_EFFORT_TOKENS[effort]


def response_schema(
    schema: Mapping[str, Any] | None, param: str, limits: Settings
) -> Mapping[str, Any] | bool:
    """Return the schema that the text has to satisfy; True is any JSON object."""
    if not schema:
        return True
    check_schema_size(json.dumps(schema), param, limits, "invalid_json_schema")
    return schema


def check_schema_size(schema: str, param: str, limits: Settings, code: str | None) -> None:
    """Raise InvalidSchemaError where a schema, as JSON, is larger than the operator allows."""
    size = len(schema)
    if size > limits.max_schema_bytes:
        raise InvalidSchemaError(
            f"Invalid '{param}': the schema has {size} bytes, more than the "
            f"{limits.max_schema_bytes} that this server allows.",
            param,
            code,
        )


def expand_shorthand_choice(choice: object) -> object:
    """Spell a tool_choice of one word as an object."""
    return {"type": choice} if isinstance(choice, str) else choice
