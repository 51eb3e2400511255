"""Keywords that decoding doesn't enforce: finished calls and answers are judged by their schemas.

One that doesn't satisfy its schema isn't let out: it is decoded again from its beginning with the
faulty value barred, and, where that doesn't help, sampled; then the reply ends with an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio.to_thread
from opentelemetry import trace

from falsework.grammars import value_span
from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Text
from falsework.server.errors import OutputCheckFailed
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.constraints import ANSWER, ConstraintCompiler
from falsework.server.generation.trial_process import TrialTooLong
from falsework.server.generation.turn import PreparedTurn
from falsework.server.observability import telemetry


@dataclass(frozen=True)
class OutputFault:
    """What is wrong with a call's arguments or an answer (`name` ANSWER).

    `pointer` leads to the keyword in the schema, `path` to the value, `culprit` to the part of it
    that should be another. `text` is the JSON text, `start` where the call or answer begins in the
    reply, in characters.
    """

    name: str
    keyword: str
    pointer: str
    path: tuple[str | int, ...]
    culprit: tuple[str | int, ...]
    value: str
    text: str = ""
    start: int = 0

    def error(self) -> OutputCheckFailed:
        """Return the error that ends the reply."""
        what = "The answer" if self.name == ANSWER else f"The call of '{self.name}'"
        where = "".join(f"/{step}" for step in self.path) or "/"
        return OutputCheckFailed(
            f"{what} doesn't satisfy '{self.keyword}' of its schema (at #{self.pointer}): the "
            f"value at {where} is {self.value}. This keyword is checked when the text is complete, "
            "and decoding it again didn't help."
        )


@dataclass
class _Held:
    """What one choice holds back, and what came of it so far."""

    text: list[Event] = field(default_factory=list)
    barred: tuple[bytes, ...] = ()
    start: int = -1
    attempts: int = 0


class OutputChecks:
    """Judges what the choices of one turn say; `attempts` bounds how often one part is redone."""

    def __init__(self, turn: PreparedTurn, compiler: ConstraintCompiler, attempts: int) -> None:
        self._turn = turn
        self._compiler = compiler
        self._attempts = attempts
        self._held: dict[int, _Held] = {}

    async def judge(
        self, choice: ChoiceProcessor, delta: ChoiceDelta
    ) -> tuple[ChoiceDelta, PreparedTurn | None]:
        """Return what may be let out, and the turn that goes on where a part has to be redone.

        Raise OutputCheckFailed where that was tried often enough.
        """
        held = self._held.setdefault(delta.choice, _Held())
        ready, fault = await self._let_out(choice, held, delta)
        if fault is None:
            return replace(delta, events=tuple(ready)), None
        telemetry.OUTPUT_CHECKS.labels("missed").inc()
        self._trace(fault)
        undecided = replace(delta, events=tuple(ready), logprobs=(), finish=None, ended_by=None)
        return undecided, await self._again(choice, held, fault)

    async def _let_out(
        self, choice: ChoiceProcessor, held: _Held, delta: ChoiceDelta
    ) -> tuple[list[Event], OutputFault | None]:
        """Return the events that are in order, up to the first fault."""
        ready: list[Event] = []
        call: list[Event] = []
        for event in delta.events:
            if isinstance(event, Text) and ANSWER in self._turn.checks:
                held.text.append(event)
            elif isinstance(event, CallBegins | Arguments | CallEnds):
                call.append(event)
                if isinstance(event, CallEnds):
                    if fault := await self._fault_of_call(choice, call):
                        return ready, fault
                    ready += call
                    call = []
            else:
                ready.append(event)
        if delta.finish is None:
            return ready, None
        text, held.text = held.text, []
        if text and delta.finish == "stop":
            said = "".join(event.text for event in text if isinstance(event, Text))
            if fault := await self._fault(ANSWER, said, choice.reader.answer_start or 0):
                return ready, fault
        return [*ready, *text], None

    async def _fault_of_call(
        self, choice: ChoiceProcessor, call: Sequence[Event]
    ) -> OutputFault | None:
        name = next(event.name for event in call if isinstance(event, CallBegins))
        if name not in self._turn.checks:
            return None
        text = "".join(event.text for event in call if isinstance(event, Arguments))
        index = next(event.index for event in call if isinstance(event, CallBegins))
        return await self._fault(name, text or "{}", choice.reader.call_starts[index])

    async def _fault(self, name: str, text: str, start: int) -> OutputFault | None:
        """Judge a JSON text, in a process of its own: a schema may take any time."""
        schema = self._turn.checks[name]
        try:
            fault = await anyio.to_thread.run_sync(self._compiler.judge, schema, text)
        except TrialTooLong as error:
            telemetry.OUTPUT_CHECKS.labels("failed").inc()
            what = "the answer" if name == ANSWER else f"the call of '{name}'"
            message = f"Whether {what} satisfies its schema can't be told: {error}."
            raise OutputCheckFailed(message) from error
        if fault is None:
            telemetry.OUTPUT_CHECKS.labels("passed").inc()
            return None
        paths = {which: tuple(fault[which]) for which in ("path", "culprit")}
        return OutputFault(name, **{**fault, **paths}, text=text, start=start)

    async def _again(
        self, choice: ChoiceProcessor, held: _Held, fault: OutputFault
    ) -> PreparedTurn:
        """Take the choice back to where the faulty part begins; return the turn from there."""
        if held.start != fault.start:
            held.start, held.barred, held.attempts = fault.start, (), 0
        held.attempts += 1
        turn = self._turn
        if held.attempts > self._attempts or turn.constraint is None:
            telemetry.OUTPUT_CHECKS.labels("failed").inc()
            raise fault.error()
        barred = await anyio.to_thread.run_sync(self._barred, choice.said, fault)
        held.barred += (barred,) if barred else ()
        said = choice.said[: fault.start]
        prefix = self._compiler.prefix_tokens(said)
        decoded = len(prefix or ()) - len(turn.opening.tokens)
        left = turn.sampling.max_tokens - decoded
        if prefix is None or left < 1:
            telemetry.OUTPUT_CHECKS.labels("failed").inc()
            raise fault.error()
        choice.rewind(turn.reader_behind(said), said)
        sampling = replace(turn.sampling, n=1, max_tokens=left)
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + held.attempts)
        if held.attempts > 1:  # barring alone didn't help
            sampling = replace(sampling, temperature=max(1.0, sampling.temperature), top_p=1.0)
        start = len(turn.prompt) - len(turn.opening.tokens)
        constraint = replace(turn.constraint, prefix=prefix, opening=said, barred=held.barred)
        return replace(
            turn,
            prompt=turn.prompt[:start] + prefix,
            sampling=sampling,
            constraint=constraint,
        )

    def _barred(self, reply: str, fault: OutputFault) -> bytes:
        """Return how the part may not begin again; b"" where there was no other way."""
        constraint = self._turn.constraint
        assert constraint, "what is checked is constrained"
        text, at = reply, fault.start
        begin, end = at, len(reply)
        found = reply.find(fault.text, at)
        if found >= 0:  # notations that aren't JSON are barred as a whole
            first, last = value_span(fault.text, fault.culprit)
            begin, end = found + first, found + last
        said = text.encode()
        spans = [(begin, end), (at, end)]
        for first, last in spans:
            cut = self._compiler.last_choice(
                constraint, said, len(text[:first].encode()), len(text[:last].encode())
            )
            if cut is not None:
                return said[len(text[:at].encode()) : cut]
        return b""

    def _trace(self, fault: OutputFault) -> None:
        trace.get_current_span().add_event(
            "falsework.output_check.missed",
            {"keyword": fault.keyword, "pointer": fault.pointer, "name": fault.name},
        )
