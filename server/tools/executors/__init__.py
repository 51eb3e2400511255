from falsework.server.tools.executors.auth import build_auth, read_secret
from falsework.server.tools.executors.base import AttemptContext, Executor, ToolDescription
from falsework.server.tools.executors.egress import EgressRules, EgressTransport, egress_rules
from falsework.server.tools.executors.http import BODILESS_METHODS, HttpExecutor
from falsework.server.tools.executors.mcp import McpClient
from falsework.server.tools.executors.mcp_http import MAX_MESSAGE_BYTES, http_transport
from falsework.server.tools.executors.mcp_link import TransportFactory
from falsework.server.tools.executors.mcp_stdio import StdioServer
from falsework.server.tools.executors.mcp_tool import McpExecutor
from falsework.server.tools.executors.openapi import OpenApiExecutor, load_operation
from falsework.server.tools.executors.process_pool import ProcessPool
from falsework.server.tools.executors.python import PythonExecutor
from falsework.server.tools.executors.response_limits import SizeLimitTransport

__all__ = [
    "BODILESS_METHODS",
    "MAX_MESSAGE_BYTES",
    "AttemptContext",
    "EgressRules",
    "EgressTransport",
    "Executor",
    "HttpExecutor",
    "McpClient",
    "McpExecutor",
    "OpenApiExecutor",
    "ProcessPool",
    "PythonExecutor",
    "SizeLimitTransport",
    "StdioServer",
    "ToolDescription",
    "TransportFactory",
    "build_auth",
    "egress_rules",
    "http_transport",
    "load_operation",
    "read_secret",
]
