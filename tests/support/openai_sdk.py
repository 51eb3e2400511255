"""The official OpenAI SDK, sync and async behind one face, and tools that a tiny model can call."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_message_function_tool_call import (
    ChatCompletionMessageFunctionToolCall as FunctionCall,
)

from support.json_schema import faults

Json = dict[str, Any]


def function(name: str, description: str, **properties: Json) -> Json:
    """Return a tool all of whose arguments are required; it does not ask to be strict."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    definition = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": definition}


# Enumerated arguments end soon, whatever a model of 135 million parameters may think of.
WEATHER = function(
    "get_weather",
    "Get the current weather of a city.",
    city={"type": "string", "enum": ["Paris", "London", "New York", "New York City"]},
    unit={"enum": ["celsius", "fahrenheit"]},
)
CLOCK = function(
    "get_time", "Get the time in a city.", city={"type": "string", "enum": ["Paris", "London"]}
)
LAMP = function("switch_lamp", "Switch the lamp.", on={"type": "boolean"})
TOOLS = [WEATHER, CLOCK, LAMP]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}

USER = {"role": "user", "content": "What is the weather in Paris, in celsius?"}


def body(**fields: Any) -> Json:
    """Return a request with small defaults."""
    return {"model": "smollm2", "messages": [USER], "max_tokens": 64, "temperature": 0} | fields


@dataclass(frozen=True)
class Sdk:
    """An OpenAI client; `told` is a stream's chunks, `asked` a whole reply."""

    url: str
    key: str
    is_async: bool

    def asked(self, **fields: Any) -> ChatCompletion:
        reply = self.do(lambda client: client.chat.completions.create(**body(**fields)))
        assert isinstance(reply, ChatCompletion)
        return reply

    def told(self, **fields: Any) -> list[ChatCompletionChunk]:
        return asyncio.run(self._heard(fields)) if self.is_async else self._drained(fields)

    def do(self, work: Callable[[Any], Any]) -> Any:
        """Do the work with a client; the async one's is awaited."""
        if not self.is_async:
            with OpenAI(**self._options()) as client:
                return work(client)

        async def awaited() -> Any:
            async with AsyncOpenAI(**self._options()) as client:
                return await work(client)

        return asyncio.run(awaited())

    def with_key(self, key: str) -> "Sdk":
        return Sdk(self.url, key, self.is_async)

    def _options(self) -> Json:
        return {"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": 120}

    def _drained(self, fields: Json) -> list[ChatCompletionChunk]:
        with OpenAI(**self._options()) as client:
            return list(client.chat.completions.create(**body(**fields), stream=True))

    async def _heard(self, fields: Json) -> list[ChatCompletionChunk]:
        async with AsyncOpenAI(**self._options()) as client:
            chunks = await client.chat.completions.create(**body(**fields), stream=True)
            return [chunk async for chunk in chunks]


@dataclass
class Folded:
    """What one choice of a stream amounts to."""

    text: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish: str | None = None


def fold(chunks: Sequence[ChatCompletionChunk], index: int = 0) -> Folded:
    """Put a stream together as clients do: first a call's id and name, then its arguments."""
    whole = Folded()
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        if choice.index != index:
            continue
        assert whole.finish is None, "nothing may follow the end"
        whole.finish = choice.finish_reason
        whole.text += choice.delta.content or ""
        for call in choice.delta.tool_calls or []:
            assert call.function is not None
            if call.index == len(whole.calls):
                assert call.id
                whole.calls.append([call.function.name or "", ""])
            whole.calls[call.index][1] += call.function.arguments or ""
    return whole


def calls_of(reply: ChatCompletion, index: int = 0) -> list[FunctionCall]:
    calls = reply.choices[index].message.tool_calls or []
    return [call for call in calls if isinstance(call, FunctionCall)]


def check(name: str, arguments: str) -> None:
    """Fail unless the call names an offered tool and its arguments satisfy that tool's schema."""
    assert faults(json.loads(arguments), SCHEMAS[name]) == []
