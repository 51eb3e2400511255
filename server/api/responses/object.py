"""The response object: every field that clients look for, from the request and what was told."""

from falsework.server.generation.usage import Usage
from falsework.server.ids import new_id
from falsework.server.types import Json
import time
from dataclasses import dataclass, field
from typing import Any


from falsework.server.api.responses.schema import CreateResponseRequest, ResponseToolChoice


RESPONSE_ID_PREFIX = "resp_"
ID_LENGTH = 24
"""How many characters of a response's id are its own; the ids of its items have them too."""


@dataclass
class ResponseObject:
    """One response; `output` are its items so far."""

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
    numbered: int = 0

    def next_item_id(self, prefix: str) -> str:
        """Return the id of another item of this response, or of its input."""
        self.numbered += 1
        return f"{prefix}{self.id.removeprefix(RESPONSE_ID_PREFIX)}{self.numbered:04}"

    def to_openai(self) -> Json:
        """Return it as clients read it."""
        asked = self.request
        text = asked.text.model_dump(exclude_none=True, by_alias=True) if asked.text else {}
        reasoning = asked.reasoning
        body: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.completed_at,
            "status": self.status,
            "background": bool(asked.background),
            "error": self.error,
            "incomplete_details": {"reason": self.incomplete} if self.incomplete else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": asked.max_tool_calls,
            "model": asked.model,
            "output": list(self.output),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": {
                "effort": reasoning.effort if reasoning else None,
                "summary": reasoning.summary if reasoning else None,
            },
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": asked.store is not False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": _choice(asked.tool_choice),
            "tools": [_echoed(tool) for tool in asked.tools or []],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": asked.truncation or "disabled",
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "usage": _usage(self.usage) if self.usage else None,
            "user": asked.user,
            "metadata": dict(asked.metadata or {}),
        }
        return {**body, "tool_runtime": self.runtime} if self.runtime else body


def response_id_of_item(item_id: str) -> str:
    """Return the id of the response that gave an item its id."""
    return RESPONSE_ID_PREFIX + item_id.partition("_")[2][:ID_LENGTH]


def _choice(choice: ResponseToolChoice | None) -> Any:
    if choice is None:
        return "auto"
    said = choice.model_dump(exclude_unset=True)
    return choice.type if set(said) == {"type"} else said


def _echoed(tool: Json) -> Json:
    """Return a tool as it is told again: complete, and without what is secret."""
    if tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    kept = {key: value for key, value in tool.items() if key not in {"authorization", "headers"}}
    if isinstance(tool.get("server_url"), str):
        scheme, _, rest = tool["server_url"].partition("://")
        kept["server_url"] = f"{scheme}://{rest.partition('/')[0]}/<redacted>"
    return {**kept, "headers": None} if tool.get("type") == "mcp" else kept


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
