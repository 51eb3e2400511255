from falsework.server.tools.resilience.bulkhead import Bulkhead
from falsework.server.tools.resilience.circuit_breaker import Permit
from falsework.server.tools.resilience.pause import Pause
from falsework.server.tools.resilience.result_cache import ResultCache
from falsework.server.tools.resilience.upstream import Upstream

__all__ = [
    "Bulkhead",
    "Pause",
    "Permit",
    "ResultCache",
    "Upstream",
]
