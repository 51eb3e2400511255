"""Chat completions, whole or in chunks: folds of the events of a reply."""

from falsework.server.types import Json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.server.generation.request import GenerationRequest
from falsework.server.engines.base import TokenLogprob
from falsework.server.generation.choice import ChoiceDelta, FinishReason




@dataclass(frozen=True)
class ReplyHeader:
    """What every object of one reply repeats."""

    question: GenerationRequest
    fingerprint: str
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))
    runtime: Callable[[], Json] | None = None
    """What is told of the run, where the server ran tools."""

    def extra_usage(self) -> Json:
        """Return what the usage tells beside the tokens."""
        return {"tool_runtime": self.runtime()} if self.runtime else {}

    def wrap(self, kind: str, choices: list[Json]) -> Json:
        """Return an object of that kind that holds the choices."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": self.fingerprint,
            "service_tier": "default",
            "choices": choices,
        }


def _logprobs(question: GenerationRequest, tokens: Iterable[TokenLogprob]) -> Json | None:
    if question.sampling.logprobs is None:
        return None
    return {"content": [_token(token) for token in tokens], "refusal": None}


def _token(token: TokenLogprob) -> Json:
    return {**_alternative(token), "top_logprobs": [_alternative(other) for other in token.top]}


def _alternative(token: TokenLogprob) -> Json:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}


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
class _Spoken:
    """What a stream has said of one choice."""

    role: bool = False
    answer: bool = False
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def taken(self) -> list[TokenLogprob]:
        """Return the tokens that no chunk has carried yet."""
        tokens, self.logprobs = self.logprobs, []
        return tokens


class ChunkBuilder:
    """Tells the steps of a reply as the chunks of a stream."""

    def __init__(self, envelope: ReplyHeader) -> None:
        self._envelope = envelope
        self._question = envelope.question
        self._spoken = [_Spoken() for _ in range(self._question.sampling.n)]

    def from_delta(self, step: ChoiceDelta) -> list[Json]:
        """Return the chunks of a step."""
        spoken = self._spoken[step.choice]
        spoken.logprobs += step.logprobs
        chunks = [] if spoken.role else [self._chunk(step.choice, self._role())]
        spoken.role = True
        deltas = self._deltas(step, spoken)
        chunks += [self._chunk(step.choice, delta, spoken.taken()) for delta in deltas]
        if step.finish:
            chunks.append(self._chunk(step.choice, {}, spoken.taken(), step.finish))
        return chunks

    def executed(self, calls: list[Json]) -> list[Json]:
        """Return the chunk that tells of calls which the server ran."""
        begun = [] if self._spoken[0].role else [self._chunk(0, self._role())]
        self._spoken[0].role = True
        return [*begun, self._chunk(0, {"executed_tools": calls})]

    def usage(self, usage: Usage) -> list[Json]:
        """Return the last chunk, where the client asked for it."""
        if not self._question.include_usage:
            return []
        told = {**usage.to_openai(), **self._envelope.extra_usage()}
        return [{**self._envelope.wrap("chat.completion.chunk", []), "usage": told}]

    def _role(self) -> Json:
        # Some clients take "" before a call for an answer, others need it where text follows.
        content = None if self._question.can_call else ""
        return {"role": "assistant", "content": content, "refusal": None}

    def _deltas(self, step: ChoiceDelta, spoken: _Spoken) -> list[Json]:
        said = [delta for event in step.events if (delta := DELTA_BUILDERS[type(event)](event))]
        spoken.answer |= any("content" in delta or "tool_calls" in delta for delta in said)
        silent = step.finish and not spoken.answer
        return [*said, {"content": ""}] if silent else said

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
            "logprobs": _logprobs(self._question, tokens) if tokens else None,
            "finish_reason": finish,
        }
        chunk = self._envelope.wrap("chat.completion.chunk", [choice])
        return {**chunk, "usage": None} if self._question.include_usage else chunk


class CompletionBuilder:
    """Folds the steps of a reply into one object."""

    def __init__(self, envelope: ReplyHeader) -> None:
        self._envelope = envelope
        self._steps: list[list[ChoiceDelta]] = [[] for _ in range(envelope.question.sampling.n)]
        self.executed: list[Json] = []
        """Calls that the server ran."""

    def add(self, step: ChoiceDelta) -> None:
        """Take a step."""
        self._steps[step.choice].append(step)

    def build(self, usage: Usage) -> Json:
        """Return the object."""
        choices = [self._choice(index, steps) for index, steps in enumerate(self._steps)]
        if self.executed:
            choices[0]["message"]["executed_tools"] = self.executed
        told = {**usage.to_openai(), **self._envelope.extra_usage()}
        whole = {**self._envelope.wrap("chat.completion", choices), "usage": told}
        metadata = self._envelope.question.metadata
        return whole if metadata is None else {**whole, "metadata": dict(metadata)}

    def _choice(self, index: int, steps: list[ChoiceDelta]) -> Json:
        tokens = [token for step in steps for token in step.logprobs]
        return {
            "index": index,
            "message": _message([event for step in steps for event in step.events]),
            "logprobs": _logprobs(self._envelope.question, tokens),
            "finish_reason": steps[-1].finish,
        }


def _message(events: list[Event]) -> Json:
    text = "".join(event.text for event in events if isinstance(event, Text))
    thought = "".join(event.text for event in events if isinstance(event, Reasoning))
    calls = [_call(event, events) for event in events if isinstance(event, CallBegins)]
    message: Json = {
        "role": "assistant",
        "content": text or (None if calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if thought:
        message |= {"reasoning_content": thought, "reasoning": thought}
    return {**message, "tool_calls": calls} if calls else message


def _call(begin: CallBegins, events: list[Event]) -> Json:
    pieces = [e.text for e in events if isinstance(e, Arguments) and e.index == begin.index]
    function = {"name": begin.name, "arguments": "".join(pieces)}
    return {"id": new_id("call_"), "type": "function", "function": function}
