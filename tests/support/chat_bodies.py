"""Requests, and the pieces that they are made of."""

import json
from typing import Any

import pytest

from falsework.server.api.chat.request import GenerationRequest, to_generation_request
from falsework.server.api.chat.schema import parse
from falsework.server.errors import BadRequestError
from falsework.server.settings import Settings

Json = dict[str, Any]

LIMITS = Settings(max_messages=20, max_tools=3, max_schema_bytes=2000, max_choices=4)
USER = {"role": "user", "content": "hello"}


def tool(name: str = "f", **function: Any) -> Json:
    return {"type": "function", "function": {"name": name, **function}}


def called(*ids: str, arguments: str = "{}") -> Json:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answer(call_id: str) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": "42"}


def allowed(*names: str, mode: str = "auto") -> Json:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def parts(*texts: str) -> list[Json]:
    return [{"type": "text", "text": text} for text in texts]


def named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def asked(**fields: Any) -> GenerationRequest:
    body = {"model": "m", "messages": [USER], **fields}
    return to_generation_request(parse(json.dumps(body).encode()), LIMITS)


def refusal(**fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        asked(**fields)
    return caught.value
