"""Bodies of requests, checked by pydantic; its errors in OpenAI's words, by the field's name."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from falsework.server.errors import BadRequestError, missing_parameter, unsupported_value
from falsework.server.types import Json

ParamPath = tuple[int | str, ...]
"""The steps to a field of the request."""

UnsupportedFields = Mapping[str, tuple[Any, str]]
"""Fields that would change the result and aren't honoured: the value that asks for nothing, and
what to do instead."""

ERROR_CODES = {"missing": "missing_required_parameter", "custom": "invalid_value"}
"""Error codes by pydantic's type of error; a type that ends in `_type` is `invalid_type`."""

TYPE = "invalid_type"
MAX_REASON = 500


class WireModel(BaseModel):
    """An object of the protocol: strict about types, silent about fields it doesn't know."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


Model = TypeVar("Model", bound=WireModel)


def parse_body(kind: type[Model], body: bytes, unsupported: UnsupportedFields) -> Model:
    """Return the request that a body holds; raise BadRequestError."""
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"The body of the request isn't valid JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise BadRequestError("The body of the request should be a JSON object.")
    for name, (neutral, instead) in unsupported.items():
        if raw.get(name) not in (None, neutral):
            message = f"'{name}' isn't supported by this server: {instead}."
            raise BadRequestError(message, name, "unsupported_parameter")
    return validate(kind, raw)


def validate(kind: type[Model], raw: Json, at: ParamPath = ()) -> Model:
    """Return an object of the request as its model; `at` is where it stands in the request."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _bad_request(error.errors(include_url=False)[0], at) from error


def select(
    kinds: Mapping[str, type[Model]], raw: Json, param: str, default: str | None = None
) -> type[Model]:
    """Return the model of an object by its `type`; `param` is the field that an error names."""
    kind = raw.get("type", default)
    if kind is None:
        raise missing_parameter(param)
    if not isinstance(kind, str):
        raise BadRequestError(f"Invalid '{param}': Input should be a valid string.", param, TYPE)
    if kind not in kinds:
        raise unsupported_value(kind, kinds, param)
    return kinds[kind]


def one_of(kinds: Mapping[str, type[WireModel]], *at: int | str, param: str = "") -> PlainValidator:
    """Return the validator of a field whose object is of one of several kinds, by its `type`.

    `param` is the field that an error names for the type, unless `type` itself.
    """
    param = param or param_path((*at, "type"))

    def parse(raw: object) -> WireModel | None:
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise PydanticCustomError("dict_type", "Input should be an object")
        return validate(select(kinds, raw, param), raw, at)

    return PlainValidator(parse)


def _bad_request(error: ErrorDetails, at: ParamPath) -> BadRequestError:
    path = (*at, *error["loc"])
    param = param_path(path[:-2] if path[-1] == "[key]" else path)
    kind = error["type"]
    if kind == "missing":
        return missing_parameter(param)
    code = TYPE if kind.endswith("_type") else ERROR_CODES.get(kind, "invalid_value")
    return BadRequestError(f"Invalid '{param}': {error['msg'][:MAX_REASON]}.", param, code)


def param_path(path: ParamPath) -> str:
    """Return a path as OpenAI names parameters: `tools[0].type`, but `messages.[0].role`."""
    head = path[:1]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path[1:])
    dot = "." if head == ("messages",) and path[1:] and isinstance(path[1], int) else ""
    return "".join(map(str, head)) + dot + "".join(steps)
