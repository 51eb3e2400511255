"""Images, files and sounds, which a model that reads text alone is told of in words."""

from collections.abc import Mapping

from falsework.server.errors import MAX_QUOTED, BadRequestError
from falsework.server.observability import warn_client

CONTENT_LEFT_OUT = "content_left_out"
"""The code of the warning for what the model isn't shown."""

KINDS: Mapping[str, str] = {
    "audio": "sound",
    "document": "document",
    "file": "file",
    "image": "image",
    "image_url": "image",
    "input_audio": "sound",
    "input_file": "file",
    "input_image": "image",
    "video_url": "video",
}
"""What parts of these types hold."""

NAME_FIELDS = ("filename", "file_name", "title", "file_id")
ADDRESS_FIELDS = ("url", "image_url", "file_url", "file_data", "data")


def not_text(kind: str, param: str) -> BadRequestError:
    """Return the error for a part that a model which reads text alone can't be asked about."""
    message = (
        f"Invalid value: '{kind[:MAX_QUOTED]}'. This model reads text alone: only parts of type "
        "'text' are supported."
    )
    return BadRequestError(message, param, "invalid_value")


def leave_out_media(kind: str, content: object, param: str) -> str:
    """Return the text that stands for a part, and warn the client; refuse a type nobody knows."""
    if kind not in KINDS:
        raise not_text(kind, f"{param}.type")
    said = f"{_described(KINDS[kind], content)} left out: this model reads text alone"
    warn_client(CONTENT_LEFT_OUT, f"{param}: {said}.", param)
    return f"[{said}]"


def _described(kind: str, content: object) -> str:
    """Return what is known of a part: its media type, its size or its address, its name."""
    fields = content if isinstance(content, dict) else {"url": content}
    kind = next((str(fields[name]) for name in ("media_type",) if fields.get(name)), kind)
    address = next((fields[name] for name in ADDRESS_FIELDS if fields.get(name)), "")
    address = address if isinstance(address, str) else ""
    name = next((str(fields[name])[:MAX_QUOTED] for name in NAME_FIELDS if fields.get(name)), "")
    head, comma, data = address.partition(",")
    if address.startswith("data:") and comma:
        kind, size = head.removeprefix("data:").partition(";")[0] or kind, len(data)
    elif "://" in address[:10]:
        return f"{kind} at {address[:MAX_QUOTED]}"
    else:
        size = len(address)
    measured = f" of {max(1, size * 3 // 4000)} kB" if size else ""
    return f"{kind[:MAX_QUOTED]}{measured}" + (f" named {name}" if name else "")
