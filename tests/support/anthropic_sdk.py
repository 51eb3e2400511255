"""Messages as Anthropic's SDK asks for them, of a scripted model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic

from falsework.server.engines.scripted import ScriptedEngine
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings
from support.chat_bodies import Json
from support.scripted_app import SETTINGS, Running, running

HELLO: Json = {"role": "user", "content": "What is the weather in Paris?"}
WEATHER: Json = {
    "name": "get_weather",
    "description": "The weather of a place.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PARIS = ("get_weather", '{"city": "Paris"}')


@contextmanager
def answering(
    scaffold: TurnBuilder, engine: ScriptedEngine, settings: Settings = SETTINGS
) -> Iterator[tuple[anthropic.Anthropic, Running]]:
    with running(engine, scaffold, settings) as house:
        with anthropic.Anthropic(base_url=house.url, api_key="k", max_retries=0, timeout=60) as sdk:
            yield sdk, house


def made(scaffold: TurnBuilder, engine: ScriptedEngine, **fields: Any) -> anthropic.types.Message:
    asked = {"model": "smollm2", "max_tokens": 100, "messages": [HELLO], **fields}
    with answering(scaffold, engine) as (sdk, _):
        return sdk.messages.create(**asked)


def events_of(scaffold: TurnBuilder, engine: ScriptedEngine, **fields: Any) -> list[Any]:
    asked = {"model": "smollm2", "max_tokens": 100, "messages": [HELLO], **fields}
    with answering(scaffold, engine) as (sdk, _):
        return list(sdk.messages.create(**asked, stream=True))


def prompt_of(engine: ScriptedEngine, scaffold: TurnBuilder, at: int = 0) -> str:
    """Return what the model was asked."""
    (tokens, _, _) = engine.asked[at]
    text: str = scaffold._prompter.tokenizer.decode(list(tokens))
    return text
