"""openai-agents on /v1/responses, its default, and on chat completions: streamed and not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import pytest
from openai import AsyncOpenAI
from support.response_bodies import FILE, SUMS
from support.scripted_app import Running, calls, scaffold_of
from support.tool_app import house_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DOUBLED = calls(("double", '{"number": 21}'))


@agents.function_tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@pytest.fixture
def house(smollm2: Path) -> Iterator[Running]:
    agents.set_tracing_disabled(disabled=True)
    with house_of(scaffold_of(smollm2), DOUBLED, "It is 42.", file={}) as made:
        yield made


KINDS: dict[str, Any] = {
    "responses": agents.OpenAIResponsesModel,
    "chat": agents.OpenAIChatCompletionsModel,
}


async def answered(house: Running, kind: str, *, stream: bool, **agent: Any) -> str:
    """Return what an agent answers."""
    url = f"{house.url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0, timeout=20) as sdk:
        model = KINDS[kind](model="smollm2", openai_client=sdk)
        one = agents.Agent(name="a", instructions="Use tools.", model=model, **agent)
        if not stream:
            return str((await agents.Runner.run(one, "Go on.")).final_output)
        streamed = agents.Runner.run_streamed(one, "Go on.")
        kinds = {event.type async for event in streamed.stream_events()}
        assert "run_item_stream_event" in kinds
        return str(streamed.final_output)


@pytest.mark.parametrize("kind", ["responses", "chat"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_calls_its_own_function(house: Running, kind: str, *, stream: bool) -> None:
    answer = await answered(house, kind, stream=stream, tools=[double])

    assert answer == "It is 42."


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_has_the_server_run_an_mcp_tool(smollm2: Path, *, stream: bool) -> None:
    agents.set_tracing_disabled(disabled=True)
    said = [calls(("sums__add", '{"a": 2, "b": 3}')), "Five."]
    with house_of(scaffold_of(smollm2), *said, file=FILE) as house:
        tool = agents.HostedMCPTool(tool_config=SUMS)  # type: ignore[arg-type]
        answer = await answered(house, "responses", stream=stream, tools=[tool])

    assert answer == "Five."
