from falsework.server.api.console import console_page, console_state
from falsework.server.api.idempotency import IdempotencyKeys
from falsework.server.api.services import Services, ServicesDep

__all__ = [
    "IdempotencyKeys",
    "Services",
    "ServicesDep",
    "console_page",
    "console_state",
]
