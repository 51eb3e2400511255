from falsework.server.api.responses import routes, websocket
from falsework.server.api.responses.service import ResponseService

__all__ = [
    "ResponseService",
    "routes",
    "websocket",
]
