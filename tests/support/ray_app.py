"""The server as replicas on Ray Serve, each with a scripted engine: for tests and measurements."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from ray import serve

from falsework.server.engines import Constraint, OutputDelta, SamplingParams
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.models import resolve_model
from falsework.server.replicas.application import application
from falsework.server.settings import Settings
from support.real_tokenizers import hugging_face
from support.scripted_app import calls, scaffold_of

FOUND = "was-found"
"""What the tool says, so that the model goes on."""


class Replying(ScriptedEngine):
    """Calls the tool `look` where a prompt knows it, and then tells the name of its replica."""

    def __init__(self, folder: Path, instance: str) -> None:
        super().__init__(ScriptedReply([instance]))
        self._tokenizer = hugging_face(folder)
        self._instance = instance

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        constraint: Constraint | None,
        request_id: str,
    ) -> AsyncGenerator[OutputDelta]:
        text = self._tokenizer.decode(list(prompt))
        looks = '"look"' in text and FOUND not in text
        engine = ScriptedEngine(
            ScriptedReply([calls(("look", '{"id": 1}')) if looks else self._instance])
        )
        await self.check_health()
        async for delta in engine.generate(prompt, sampling, constraint, request_id):
            yield delta


async def replying(settings: Settings, instance: str) -> tuple[ScriptedEngine, TurnBuilder]:
    del settings
    folder = Path(resolve_model("smollm2", print))
    return Replying(folder, instance), scaffold_of(folder)


def build(arguments: dict[str, Any]) -> serve.Application:
    return application(arguments, replying)
