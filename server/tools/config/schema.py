"""The schema of a tools file: tools of four kinds, MCP servers, references to secrets."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from falsework.server.tools.config.policies import Policy, RequestPolicy, ToolPolicy

TOOL_NAME_PATTERN = r"^[a-zA-Z0-9_-]{1,64}$"
ToolName = Annotated[str, Field(pattern=TOOL_NAME_PATTERN)]
NO_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


class SecretRef(Policy):
    """Where a secret is found: never the secret itself."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("should be either {env: VARIABLE} or {file: PATH}")
        return self


class BearerAuth(Policy):
    """`Authorization: Bearer …`."""

    type: Literal["bearer"]
    token: SecretRef


class HeaderAuth(Policy):
    """A header that the upstream defines."""

    type: Literal["header"]
    name: str
    value: SecretRef


class BasicAuth(Policy):
    """User and password."""

    type: Literal["basic"]
    user: SecretRef
    password: SecretRef


class ClientCredentials(Policy):
    """OAuth 2, client credentials grant (RFC 6749, section 4.4)."""

    type: Literal["oauth2_client_credentials"]
    token_url: str
    client_id: SecretRef
    client_secret: SecretRef
    scopes: tuple[str, ...] = ()


Auth = Annotated[
    BearerAuth | HeaderAuth | BasicAuth | ClientCredentials, Field(discriminator="type")
]


def _check_fixed_host(url: str) -> str:
    if not re.match(r"https?://[^/{}?#@\s]+([/?#]|$)", url):
        raise ValueError("should be http:// or https:// with a host that no argument can change")
    return url


Url = Annotated[str, AfterValidator(_check_fixed_host)]


class HttpTool(Policy):
    """One HTTP request; `{name}` in url, query, headers and body is an argument.

    Arguments without a placeholder go to the query of GET, HEAD and DELETE, else to a JSON body.
    """

    url: Url
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    query: dict[str, Any] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None


class OpenApiTool(Policy):
    """One operation of an OpenAPI 3 document."""

    document: str = Field(description="A path, from the tools file's folder.")
    operation: str = Field(description="Its operationId.")
    base_url: Url | None = Field(default=None, description="Otherwise the document's first server.")


class McpTool(Policy):
    """One tool of an MCP server."""

    server: ToolName
    tool: str | None = Field(default=None, description="Otherwise the tool's name here.")


class PythonTool(Policy):
    """A trusted function, async or not."""

    callable: str = Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")
    run_in: Literal["process", "thread"] | None = Field(
        default=None,
        description="By itself a process, which can be stopped, or a thread for reads.",
    )

    def run_location(self, effect: str | None) -> str:
        """Return `process` or `thread`; by default a thread for tools that only read."""
        return self.run_in or ("thread" if effect in {"pure", "read"} else "process")


class ToolConfig(ToolPolicy):
    """A tool that the server runs; exactly one of http, openapi, mcp and python.

    `parameters` and `result_schema` are JSON Schemas.
    """

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="The arguments.")
    result_schema: dict[str, Any] | None = Field(default=None, description="The result.")
    expose: bool = Field(default=True, description="Offered to the model.")
    auth: Auth | None = None
    http: HttpTool | None = None
    openapi: OpenApiTool | None = None
    mcp: McpTool | None = None
    python: PythonTool | None = None

    @property
    def kind(self) -> str:
        """The kind of the tool, one of TOOL_KINDS."""
        return next(kind for kind in TOOL_KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        given = [kind for kind in TOOL_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none of them"
            raise ValueError(f"should be exactly one of {', '.join(TOOL_KINDS)}, and is {named}")
        return self


TOOL_KINDS = ("http", "openapi", "mcp", "python")


class McpServerConfig(ToolPolicy):
    """An MCP server, reached over streamable HTTP or started as a command; policies for its tools.

    `tools` are offered under the name `server__tool`, without an entry of their own.
    """

    url: Url | None = None
    command: tuple[str, ...] = ()
    environment: dict[str, SecretRef] = Field(default_factory=dict)
    auth: Auth | None = None
    tools: tuple[str, ...] = ()
    require_approval: bool = False
    pin_schemas: bool = True

    @model_validator(mode="after")
    def _check_one_transport(self) -> Self:
        if bool(self.url) == bool(self.command):
            raise ValueError("should have either url or command")
        return self


class RequestMcpServersConfig(Policy):
    """The hosts of MCP servers that requests may name by server_url."""

    allow_hosts: tuple[str, ...] = ()
    deny_private: bool = True
    max_connections: int = Field(default=256, ge=1, description="Of all keys together.")
    max_connections_per_key: int = Field(default=32, ge=1, description="Of one API key.")


class ToolsFile(Policy):
    """The whole file."""

    version: Literal[1] = 1
    request: RequestPolicy = RequestPolicy()
    tools: tuple[ToolConfig, ...] = ()
    servers: dict[ToolName, McpServerConfig] = Field(default_factory=dict)
    request_servers: RequestMcpServersConfig = RequestMcpServersConfig()
