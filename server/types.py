"""Types that every folder of the server may use."""

from typing import Any

Json = dict[str, Any]
"""A JSON object."""
