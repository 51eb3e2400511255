"""POST /v1/responses and its companions: from the body of a request to its reply."""

from contextlib import AsyncExitStack, ExitStack

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from falsework.server.api.idempotency import IdempotentRequest, replay
from falsework.server.api.responses.pagination import paginate
from falsework.server.api.responses.schema import parse
from falsework.server.api.responses.service import ResponseService
from falsework.server.api.responses.state import InProgressResponse
from falsework.server.api.services import BodyDep, ServicesDep, hold_seat
from falsework.server.http import cancel_on_disconnect, client_timeout, open_stream, principal
from falsework.server.storage import StoredReply
from falsework.server.types import Json

router = APIRouter(prefix="/v1/responses")


@router.post("", dependencies=[Depends(hold_seat)])
async def create_response(request: Request, services: ServicesDep, body: BodyDep) -> Response:
    """Answer a request for a response."""
    fields = parse(body)
    services.check_model(fields.model)
    owner, service = principal(request), _service(request)
    async with AsyncExitStack() as stack:
        acquired = await stack.enter_async_context(services.keys.acquire(request, body, owner))
        if acquired.reply is not None:
            return await replay(
                request, acquired.reply, lambda of: service.stream_events(owner, of, -1)
            )
        seconds = client_timeout(request.headers, alone=bool(fields.background))
        response = await service.create(fields, owner, acquired, seconds)
        if fields.background:
            seat: ExitStack = request.state.seat.pop_all()  # until the response is made
            services.background.start_soon(service.run_in_background, response, seat)
            return await _in_background(request, response, acquired)
        if fields.stream:
            events = acquired.collect(service.stream(response), stack.pop_all())
            return await open_stream(request, events)
        reply = await cancel_on_disconnect(request, service.run(response))
        acquired.complete(StoredReply(body=reply))
        return JSONResponse(reply)


@router.post("/input_tokens", dependencies=[Depends(hold_seat)])
async def count_input_tokens(request: Request, services: ServicesDep, body: BodyDep) -> Json:
    """Return how many tokens the prompt of a request would have."""
    fields = parse(body)
    services.check_model(fields.model)
    count = await _service(request).count_input(fields, principal(request))
    return {"object": "response.input_tokens", "input_tokens": count}


@router.post("/compact", dependencies=[Depends(hold_seat)])
async def compact(request: Request, services: ServicesDep, body: BodyDep) -> Response:
    """Return a conversation in fewer tokens."""
    fields = parse(body)
    services.check_model(fields.model)
    work = _service(request).compact(fields, principal(request))
    return JSONResponse(await cancel_on_disconnect(request, work))


async def _in_background(
    request: Request, response: InProgressResponse, acquired: IdempotentRequest
) -> Response:
    """Return the reply to a request whose response goes on without its client."""
    if response.parts.request.stream:
        acquired.complete(StoredReply(response_id=response.id))
        return await _stream_events(request, response.id, -1)
    body = response.builder.body
    acquired.complete(StoredReply(body=body))
    return JSONResponse(body)


@router.get("/{response_id}")
async def retrieve(request: Request, response_id: str) -> Response:
    """Return a response, or its events again."""
    query = request.query_params
    if query.get("stream") != "true":
        return JSONResponse(await _service(request).retrieve(principal(request), response_id))
    after = query.get("starting_after", "")
    return await _stream_events(request, response_id, int(after) if after.isdecimal() else -1)


@router.delete("/{response_id}")
async def delete(request: Request, response_id: str) -> Json:
    """Delete a response."""
    return await _service(request).delete(principal(request), response_id)


@router.post("/{response_id}/cancel")
async def cancel(request: Request, response_id: str) -> Json:
    """Stop a response that is made in the background."""
    return await _service(request).cancel(principal(request), response_id)


@router.get("/{response_id}/input_items")
async def input_items(request: Request, response_id: str) -> Json:
    """Return the items of a response's input."""
    items = await _service(request).input_items(principal(request), response_id)
    return paginate(items, request.query_params)


async def _stream_events(request: Request, response_id: str, after: int) -> Response:
    events = _service(request).stream_events(principal(request), response_id, after)
    return await open_stream(request, events)


def _service(request: Request) -> ResponseService:
    service: ResponseService = request.state.responses
    return service
