"""The response object: every field that clients look for."""

import time
from dataclasses import dataclass, field
from typing import Any

from falsework.server.api.responses.schema import CreateResponseRequest, ResponseToolChoice
from falsework.server.generation import Usage
from falsework.server.ids import new_id
from falsework.server.types import Json

RESPONSE_ID_PREFIX = "resp_"
ID_LENGTH = 24
"""How many characters of a response's id are its own; the ids of its items have them too."""


@dataclass
class ResponseObject:
    """One response as its event builder has made it so far; `output` are its items."""

    request: CreateResponseRequest
    id: str = field(default_factory=lambda: new_id(RESPONSE_ID_PREFIX))
    created_at: int = field(default_factory=lambda: int(time.time()))
    completed_at: int | None = None
    status: str = "in_progress"
    output: list[Json] = field(default_factory=list)
    usage: Usage | None = None
    error: Json | None = None
    incomplete: str = ""
    runtime: Json | None = None
    warnings: list[Json] = field(default_factory=list)
    """What was done though something went wrong beside it."""
    item_count: int = 0

    def next_item_id(self, prefix: str) -> str:
        """Return the id of another item of this response, or of its input."""
        self.item_count += 1
        return f"{prefix}{self.id.removeprefix(RESPONSE_ID_PREFIX)}{self.item_count:04}"

    def to_openai(self) -> Json:
        """Return it as clients read it."""
        request = self.request
        text = request.text.model_dump(exclude_none=True, by_alias=True) if request.text else {}
        reasoning = request.reasoning
        body: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "status": self.status,
            "background": bool(request.background),
            "error": self.error,
            "incomplete_details": {"reason": self.incomplete} if self.incomplete else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "model": request.model,
            "output": list(self.output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {
                "effort": reasoning.effort if reasoning else None,
                "summary": reasoning.summary if reasoning else None,
            },
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": request.store is not False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": _choice(request.tool_choice),
            "tools": [_echoed(tool) for tool in request.tools or []],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.truncation or "disabled",
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "usage": usage_object(self.usage) if self.usage else None,
            "user": request.user,
            "metadata": dict(request.metadata or {}),
        }
        more = {"tool_runtime": self.runtime, "warnings": list(self.warnings)}
        return {**body, **{name: value for name, value in more.items() if value}}


def response_id_of_item(item_id: str) -> str:
    """Return the id of the response that gave an item its id."""
    return RESPONSE_ID_PREFIX + item_id.partition("_")[2][:ID_LENGTH]


def _choice(choice: ResponseToolChoice | None) -> Any:
    if choice is None:
        return "auto"
    fields = choice.model_dump(exclude_unset=True)
    return choice.type if set(fields) == {"type"} else fields


def _echoed(tool: Json) -> Json:
    """Return a tool as it is told again: complete, and without what is secret."""
    if tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    shown = {key: value for key, value in tool.items() if key not in {"authorization", "headers"}}
    if isinstance(tool.get("server_url"), str):
        scheme, _, rest = tool["server_url"].partition("://")
        shown["server_url"] = f"{scheme}://{rest.partition('/')[0]}/<redacted>"
    return {**shown, "headers": None} if tool.get("type") == "mcp" else shown


def usage_object(usage: Usage) -> Json:
    """Return the `usage` of a response."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
