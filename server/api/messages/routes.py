"""POST /v1/messages and its count of tokens: Anthropic's protocol over the same requests."""

from dataclasses import replace

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from falsework.server.api.messages.events import MessageBuilder, collect_message, stream_message
from falsework.server.api.messages.request import to_generation_request
from falsework.server.api.messages.schema import parse, parse_count
from falsework.server.api.services import BodyDep, ServicesDep, hold_seat
from falsework.server.errors import MESSAGES_PATH, anthropic_error_body
from falsework.server.http import (
    StreamStyle,
    cancel_on_disconnect,
    client_timeout,
    open_stream,
    principal,
)
from falsework.server.observability import RequestMetrics
from falsework.server.types import Json

STYLE = StreamStyle(anthropic_error_body, end=None, ping={"type": "ping"})

router = APIRouter(prefix=MESSAGES_PATH)


@router.post("", dependencies=[Depends(hold_seat)])
async def create_message(request: Request, services: ServicesDep, body: BodyDep) -> Response:
    """Answer a request for a message."""
    deadline = anyio.current_time() + client_timeout(request.headers)
    fields = parse(body)
    services.check_model(fields.model)
    generation = replace(to_generation_request(fields, services.settings), owner=principal(request))
    turn = await services.runner.builder.build(generation)
    metrics = RequestMetrics(generation.model, "messages", generation.stream)
    half_calls = generation.stream and services.settings.stream_calls == "as_decoded"
    deltas = services.runner.stream(
        turn.request, metrics, half_calls=half_calls, turn=turn, deadline=deadline
    )
    shown = fields.thinking is None or fields.thinking.display != "omitted"
    prompt = len(turn.prompt) - len(turn.opening.tokens)
    builder = MessageBuilder(generation.model, prompt, show_thinking=shown)
    if generation.stream:
        return await open_stream(request, stream_message(deltas, builder, metrics), STYLE)
    return JSONResponse(
        await cancel_on_disconnect(request, collect_message(deltas, builder, metrics))
    )


@router.post("/count_tokens", dependencies=[Depends(hold_seat)])
async def count_tokens(services: ServicesDep, body: BodyDep) -> Json:
    """Return how many tokens the prompt of a request has."""
    fields = parse_count(body)
    services.check_model(fields.model)
    generation = to_generation_request(fields, services.settings)
    prompt = await anyio.to_thread.run_sync(services.runner.builder.lay_out, generation)
    return {"input_tokens": len(prompt.tokens)}
