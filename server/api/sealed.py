"""Text that a client keeps for the server: reasoning, and what stands for a compacted conversation.

`encrypted_content`, or the `signature` of a thought, is opaque to clients and sent back as it came.
There is nothing secret in it here, since the text is the client's own, so it is packed and not
encrypted. What another server made is told by its beginning.
"""

import base64
import binascii
import zlib

COMPACTION = "fwc1."
REASONING = "fwr1."
"""What sealed texts of each kind begin with."""

MAX_TEXT_BYTES = 8 * 2**20


def sealed(text: str, kind: str) -> str:
    """Return a text as a client keeps it."""
    return kind + base64.urlsafe_b64encode(zlib.compress(text.encode())).decode()


def unsealed(content: str, kind: str) -> str | None:
    """Return the text of a content that this server sealed, None for any other."""
    if not content.startswith(kind):
        return None
    try:
        packed = base64.urlsafe_b64decode(content.removeprefix(kind))
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, MAX_TEXT_BYTES)
        return text.decode() if unpacker.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
