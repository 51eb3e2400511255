"""Every error that a client is told, and how it looks on the wire.

APIError
├── BadRequestError (400)        a field that is wrong, unknown or can't be honoured
│   ├── InvalidSchemaError       a schema that can't be enforced
│   └── ContextLengthExceeded    the prompt doesn't fit the model
├── AuthenticationError (401)
├── PermissionDeniedError (403)  a page or a host that isn't allowed
├── NotFoundError (404)
├── RequestTimeout (408)         the body didn't come
├── ConflictError (409)          the same request is being done
├── PayloadTooLarge (413)
├── UnsupportedMediaType (415)
├── RateLimitError (429)
├── ClientDisconnected (499)     nobody is there to read the reply
├── InternalServerError (500)    our fault
├── ShuttingDown (503)           EngineDeadError, another 503, stands beside the engine's contract
└── ToolsUnavailable (503)
"""

from collections.abc import Iterable

from starlette.responses import JSONResponse

from falsework.server.types import Json

SERVER_FAULT = 500
"""The least status of an error that isn't the client's."""

MAX_QUOTED = 100
"""Characters of a client's value that an error repeats."""


class APIError(Exception):
    """An error for the client; `status`, `type`, `code` are OpenAI's, `param` names the field."""

    status = 500
    type = "server_error"
    code: str | None = None
    headers: dict[str, str] = {}

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code


class BadRequestError(APIError):
    """A field that is wrong, unknown or can't be honoured."""

    status = 400
    type = "invalid_request_error"


def unsupported_value(value: str, supported: Iterable[str], param: str) -> BadRequestError:
    """Return the error for a word that isn't one of those that the field takes."""
    known = ", ".join(f"'{word}'" for word in supported)
    message = f"Invalid value: '{value[:MAX_QUOTED]}'. Supported values are: {known}."
    return BadRequestError(message, param, "invalid_value")


def missing_parameter(param: str) -> BadRequestError:
    """Return the error for a required field that isn't there."""
    message = f"Missing required parameter: '{param}'."
    return BadRequestError(message, param, "missing_required_parameter")


class InvalidSchemaError(BadRequestError):
    """A schema that can't be enforced: `tool` names whose it is, if one tool's.

    `too_hard`: it is valid, and only more than can be served here.
    """

    code = "invalid_function_parameters"
    tool: str | None = None
    too_hard = False


class ContextLengthExceeded(BadRequestError):
    """The prompt doesn't fit the model."""

    code = "context_length_exceeded"


class AuthenticationError(APIError):
    """No key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(APIError):
    """A page or a host that the operator hasn't allowed."""

    status = 403
    type = "invalid_request_error"


class RequestTimeout(APIError):
    """The body didn't come in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    headers = {"connection": "close"}


class UnsupportedMediaType(APIError):
    """The body doesn't say that it is JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class NotFoundError(APIError):
    """No such thing here."""

    status = 404
    type = "invalid_request_error"


class ConflictError(APIError):
    """The same request, by its key, is being done."""

    status = 409
    type = "invalid_request_error"
    code = "still_running"


class PayloadTooLarge(APIError):
    """The body is larger than the operator allows."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class RateLimitError(APIError):
    """More requests at once than the operator allows."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_requests"
    headers = {"retry-after": "1"}


class InternalServerError(APIError):
    """Our fault; a retry of the same request would break again."""

    headers = {"x-should-retry": "false"}


class OutputCheckFailed(InternalServerError):
    """The model kept to no text that satisfies a keyword which decoding can't enforce."""

    code = "output_check_failed"


class ClientDisconnected(APIError):
    """The client went away; nobody will read this."""

    status = 499
    type = "invalid_request_error"
    code = "client_disconnected"


class ToolsUnavailable(APIError):
    """The runtime of the tools has ended; the process has to be restarted."""

    status = 503
    type = "server_error"
    code = "tools_unavailable"


class ShuttingDown(APIError):
    """The server is on its way out; another may answer."""

    status = 503
    type = "server_error"
    code = "shutting_down"
    headers = {"retry-after": "5"}


def error_body(error: APIError) -> Json:
    """Return the body of an error's reply, in OpenAI's shape."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


MESSAGES_PATH = "/v1/messages"
"""Where Anthropic's protocol is spoken."""

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_error_body(error: APIError) -> Json:
    """Return the body of an error's reply, in Anthropic's shape; `param` names the field."""
    kind = _ANTHROPIC_TYPES.get(
        error.status, "invalid_request_error" if error.status < SERVER_FAULT else "api_error"
    )
    own = {"type": kind, "message": error.message, "param": error.param}
    return {"type": "error", "error": own}


def error_response(error: APIError, path: str = "") -> JSONResponse:
    """Return the reply to a request that ended with an error, as its path's protocol has it."""
    body = anthropic_error_body if path.startswith(MESSAGES_PATH) else error_body
    return JSONResponse(body(error), error.status, headers=dict(error.headers))
