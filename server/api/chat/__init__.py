from falsework.server.api.chat import routes
from falsework.server.api.chat.request import to_generation_request
from falsework.server.api.chat.schema import parse

__all__ = [
    "parse",
    "routes",
    "to_generation_request",
]
