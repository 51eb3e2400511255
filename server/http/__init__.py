from falsework.server.http.auth import APIKeyAuth, principal
from falsework.server.http.body import read_body
from falsework.server.http.browsers import BrowserChecks
from falsework.server.http.client_timeout import client_timeout
from falsework.server.http.middleware import (
    REQUEST_ID_HEADER,
    WARNING_HEADER,
    RequestContextMiddleware,
)
from falsework.server.http.paths import path_hint
from falsework.server.http.protocol import MAX_HEAD_BYTES, LimitedProtocol
from falsework.server.http.sse import StreamStyle, cancel_on_disconnect, open_stream

__all__ = [
    "MAX_HEAD_BYTES",
    "REQUEST_ID_HEADER",
    "WARNING_HEADER",
    "APIKeyAuth",
    "BrowserChecks",
    "LimitedProtocol",
    "RequestContextMiddleware",
    "StreamStyle",
    "cancel_on_disconnect",
    "client_timeout",
    "open_stream",
    "path_hint",
    "principal",
    "read_body",
]
