"""Every way to say no to a client.

Refusal
├── BadRequest (400)           a field that is wrong, unknown or can't be honoured
│   ├── BadSchema              a schema that can't be enforced
│   └── ContextOverflow        the prompt doesn't fit the model
├── Unauthorized (401)
├── NotFound (404)
├── StillRunning (409)         the same request is being done
├── TooLarge (413)
├── TooMany (429)
├── ClientGone (499)           nobody is there to read the reply
├── Broken (500)               our fault
├── ShuttingDown (503)         EngineGone, another 503, stands beside the engine's contract
└── ToolsGone (503)
"""


class APIError(Exception):
    """A refusal; `status`, `type` and `code` are OpenAI's vocabulary, `param` names the field."""

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


class InvalidSchemaError(BadRequestError):
    """A schema that can't be enforced."""

    code = "invalid_function_parameters"


class ContextLengthExceeded(BadRequestError):
    """The prompt doesn't fit the model."""

    code = "context_length_exceeded"


class AuthenticationError(APIError):
    """No key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


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
