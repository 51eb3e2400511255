from falsework.server.storage.errors import NOT_STORED, StorageUnavailable
from falsework.server.storage.leases import IDEMPOTENCY_TTL
from falsework.server.storage.replies import StoredReply
from falsework.server.storage.responses import StoredResponse
from falsework.server.storage.store import Store

__all__ = [
    "IDEMPOTENCY_TTL",
    "NOT_STORED",
    "StorageUnavailable",
    "Store",
    "StoredReply",
    "StoredResponse",
]
