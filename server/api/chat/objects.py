"""Chat completions, whole or in chunks: folds of the events of a reply."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.server.api.chat.legacy_functions import as_function_call
from falsework.server.api.chat.message_object import custom_call, message_object
from falsework.server.api.logprobs import logprob_object
from falsework.server.engines import TokenLogprob
from falsework.server.generation import (
    NO_USAGE,
    ChoiceDelta,
    EndedBy,
    FinishReason,
    GenerationRequest,
    LoopEvent,
    ToolCallsFinished,
    Usage,
)
from falsework.server.ids import new_id
from falsework.server.observability import RequestMetrics, record_outcome, warning_objects
from falsework.server.types import Json


@dataclass(frozen=True)
class ReplyHeader:
    """What every object of one reply repeats."""

    request: GenerationRequest
    fingerprint: str
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))
    runtime: Callable[[], Json] | None = None
    """Returns the summary of the tool run, where the server ran tools."""

    def extra_usage(self) -> Json:
        """Return the extra fields of `usage` (`tool_runtime`)."""
        return {"tool_runtime": self.runtime()} if self.runtime else {}

    def wrap(self, kind: str, choices: list[Json]) -> Json:
        """Return an object of that kind that holds the choices."""
        if self.request.legacy_functions:
            choices = [as_function_call(choice) for choice in choices]
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": self.fingerprint,
            "service_tier": "default",
            "choices": choices,
        }


def _logprobs(request: GenerationRequest, tokens: Iterable[TokenLogprob]) -> Json | None:
    if request.sampling.logprobs is None:
        return None
    return {"content": [logprob_object(token) for token in tokens], "refusal": None}


def _stop_reason(ended_by: EndedBy | None) -> Json:
    """Return what tells which limit of the server ended a choice; nothing where none did."""
    return {"stop_reason": ended_by} if ended_by else {}


def _call_delta(index: int, **fields: object) -> Json:
    return {"tool_calls": [{"index": index, **fields}]}


def _reasoning(event: Reasoning) -> Json:
    return {"reasoning_content": event.text, "reasoning": event.text}


def _text(event: Text) -> Json:
    return {"content": event.text}


def _begins(event: CallBegins) -> Json:
    function = {"name": event.name, "arguments": ""}
    return _call_delta(event.index, id=new_id("call_"), type="function", function=function)


def _arguments(event: Arguments) -> Json:
    return _call_delta(event.index, function={"arguments": event.text})


def _ends(_: CallEnds) -> None:
    return None


DELTA_BUILDERS: Mapping[type[Event], Callable[[Any], Json | None]] = {
    Arguments: _arguments,
    CallBegins: _begins,
    CallEnds: _ends,
    Reasoning: _reasoning,
    Text: _text,
}


@dataclass
class _ChoiceState:
    """What a stream has sent of one choice."""

    role: bool = False
    answer: bool = False
    custom: str | None = None
    """The custom tool whose call is being said, and its arguments so far."""
    arguments: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    ended_by: EndedBy | None = None

    def take_logprobs(self) -> list[TokenLogprob]:
        """Return the tokens that no chunk has carried yet."""
        tokens, self.logprobs = self.logprobs, []
        return tokens


class ChunkBuilder:
    """Builds the chunks of a stream from the events of a reply."""

    def __init__(self, header: ReplyHeader) -> None:
        self._header = header
        self._request = header.request
        self._states = [_ChoiceState() for _ in range(self._request.sampling.n)]

    def chunks(self, event: LoopEvent) -> list[Json]:
        """Return the chunks of an event."""
        match event:
            case ChoiceDelta():
                return self._delta_chunks(event)
            case ToolCallsFinished(outcomes=results):
                role = self._role_chunk(0)
                executed = {"executed_tools": [result.to_openai() for result in results]}
                return [*role, self._chunk(0, executed)]
            case Usage() if self._request.include_usage:
                usage = {**usage_object(event), **self._header.extra_usage()}
                return [{**self._header.wrap("chat.completion.chunk", []), "usage": usage}]
        return []

    def _delta_chunks(self, delta: ChoiceDelta) -> list[Json]:
        state = self._states[delta.choice]
        state.logprobs += delta.logprobs
        state.ended_by = delta.ended_by or state.ended_by
        chunks = self._role_chunk(delta.choice)
        chunks += [
            self._chunk(delta.choice, fields, state.take_logprobs())
            for fields in self._fields(delta, state)
        ]
        if delta.finish:
            last = self._chunk(delta.choice, {}, state.take_logprobs(), delta.finish)
            last["choices"][0] |= _stop_reason(state.ended_by)
            chunks.append(last)
        return chunks

    def _role_chunk(self, index: int) -> list[Json]:
        """Return the first chunk of a choice, once."""
        state = self._states[index]
        if state.role:
            return []
        state.role = True
        # Some clients take "" before a call for an answer, others need it where text follows.
        content = None if self._request.can_call else ""
        return [self._chunk(index, {"role": "assistant", "content": content, "refusal": None})]

    def _fields(self, delta: ChoiceDelta, state: _ChoiceState) -> list[Json]:
        """Return the `delta` objects of the events."""
        built = (self._field(event, state) for event in delta.events)
        fields = [one for one in built if one]
        state.answer |= any("content" in one or "tool_calls" in one for one in fields)
        empty = delta.finish and not state.answer
        return [*fields, {"content": ""}] if empty else fields

    def _field(self, event: Event, state: _ChoiceState) -> Json | None:
        """Return the `delta` object of an event; the call of a custom tool comes whole."""
        match event:
            case CallBegins(name=name) if name in self._request.custom_tools:
                state.custom, state.arguments = name, ""
                return None
            case Arguments() if state.custom is not None:
                state.arguments += event.text
                return None
            case CallEnds() if state.custom is not None:
                name, state.custom = state.custom, None
                return _call_delta(event.index, **custom_call(name, state.arguments))
        return DELTA_BUILDERS[type(event)](event)

    def _chunk(
        self,
        index: int,
        delta: Json,
        tokens: Sequence[TokenLogprob] = (),
        finish: FinishReason | None = None,
    ) -> Json:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(self._request, tokens) if tokens else None,
            "finish_reason": finish,
        }
        chunk = self._header.wrap("chat.completion.chunk", [choice])
        if finish and (warnings := warning_objects()):
            chunk["warnings"] = warnings
        return {**chunk, "usage": None} if self._request.include_usage else chunk


class CompletionBuilder:
    """Folds the events of a reply into one object."""

    def __init__(self, header: ReplyHeader) -> None:
        self._header = header
        self._deltas: list[list[ChoiceDelta]] = [[] for _ in range(header.request.sampling.n)]
        self._executed: list[Json] = []
        self._usage = NO_USAGE

    def add(self, event: LoopEvent) -> None:
        """Take an event."""
        match event:
            case ChoiceDelta():
                self._deltas[event.choice].append(event)
            case ToolCallsFinished(outcomes=results):
                self._executed += [result.to_openai() for result in results]
            case Usage():
                self._usage = event

    def build(self) -> Json:
        """Return the object."""
        choices = [self._choice(index, deltas) for index, deltas in enumerate(self._deltas)]
        if self._executed:
            choices[0]["message"]["executed_tools"] = self._executed
        usage = {**usage_object(self._usage), **self._header.extra_usage()}
        completion = {**self._header.wrap("chat.completion", choices), "usage": usage}
        if warnings := warning_objects():
            completion["warnings"] = warnings
        metadata = self._header.request.metadata
        return completion if metadata is None else {**completion, "metadata": dict(metadata)}

    def _choice(self, index: int, deltas: list[ChoiceDelta]) -> Json:
        tokens = [token for delta in deltas for token in delta.logprobs]
        return {
            "index": index,
            "message": message_object(
                [event for delta in deltas for event in delta.events],
                self._header.request.custom_tools,
            ),
            "logprobs": _logprobs(self._header.request, tokens),
            "finish_reason": deltas[-1].finish,
            **_stop_reason(next((one.ended_by for one in deltas if one.ended_by), None)),
        }


async def collect_completion(
    events: AsyncGenerator[LoopEvent],
    header: ReplyHeader,
    metrics: RequestMetrics | None = None,
) -> Json:
    """Return the reply as one object: the fold of what a stream would send."""
    completion = CompletionBuilder(header)
    with record_outcome(metrics) if metrics else nullcontext():
        async with aclosing(events):
            async for event in events:
                completion.add(event)
    return completion.build()


async def stream_chunks(
    events: AsyncGenerator[LoopEvent],
    header: ReplyHeader,
    metrics: RequestMetrics | None = None,
) -> AsyncGenerator[Json]:
    """Yield the reply chunk by chunk; closing it frees the engine."""
    builder = ChunkBuilder(header)
    with record_outcome(metrics) if metrics else nullcontext():
        async with aclosing(events):
            async for event in events:
                for chunk in builder.chunks(event):
                    yield chunk


def usage_object(usage: Usage) -> Json:
    """Return the `usage` of a chat completion."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
