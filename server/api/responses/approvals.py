"""Calls that wait for the client's approval, and the answers to them; each answer counts once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from falsework.server.api.responses.item_schema import (
    McpApprovalRequest,
    McpApprovalResponse,
    parse_item,
)
from falsework.server.api.responses.messages import qualified_tool_name
from falsework.server.errors import MAX_QUOTED, BadRequestError
from falsework.server.storage import Store
from falsework.server.tools import ToolCall, ToolRun
from falsework.server.types import Json


@dataclass(frozen=True)
class ApprovalAnswer:
    """A client's answer to a call that waited; `digest` is of the call that it was asked about."""

    call: ToolCall
    approved: bool
    reason: str
    digest: str
    param: str


def parse_approvals(
    before: Sequence[Json], items: Sequence[Json], server_tools: frozenset[str]
) -> list[ApprovalAnswer]:
    """Return the answers among a request's items that no call has followed yet.

    `before` are the items of the conversation so far, `server_tools` what the request offers.
    """
    answers = [i for i, item in enumerate(items) if item.get("type") == "mcp_approval_response"]
    if not answers:
        return []
    every = [*before, *items]
    waiting = {item["id"]: item for item in every if item.get("type") == "mcp_approval_request"}
    done = {item.get("approval_request_id") for item in every if item.get("type") == "mcp_call"}
    by_request: dict[str, ApprovalAnswer] = {}
    for position in answers:
        answer = parse_item(items[position], ("input", position))
        assert isinstance(answer, McpApprovalResponse), "its type says so"
        request_id, param = answer.approval_request_id, f"input[{position}].approval_request_id"
        if request_id in done:
            continue
        if request_id not in waiting or request_id in by_request:
            raise _unknown(request_id, param)
        by_request[request_id] = _answer(waiting[request_id], answer, server_tools, param)
    return list(by_request.values())


def _answer(
    item: Json, answer: McpApprovalResponse, server_tools: frozenset[str], param: str
) -> ApprovalAnswer:
    request = parse_item(item, ("input",))
    assert isinstance(request, McpApprovalRequest), "its type says so"
    name = qualified_tool_name(request.server_label, request.name, server_tools)
    if name not in server_tools:
        message = f"This call is of '{name[:64]}', which isn't among the tools of this request."
        raise BadRequestError(message, param, "invalid_value")
    call = ToolCall(request.id, name, request.arguments)
    return ApprovalAnswer(call, answer.approve, answer.reason or "", call_digest(item), param)


def call_digest(item: Json) -> str:
    """Return the digest that tells a request for approval from one that was changed since."""
    call = json.dumps([item["server_label"], item["name"], item["arguments"]])
    return hashlib.sha256(call.encode()).hexdigest()


async def consume_approvals(
    answers: Sequence[ApprovalAnswer], owner: str, run: ToolRun, store: Store
) -> list[ApprovalAnswer]:
    """Take answers for a run; a call that another run made is remembered, not made again."""
    return [await _consume(answer, owner, run, store) for answer in answers]


async def _consume(
    answer: ApprovalAnswer, owner: str, run: ToolRun, store: Store
) -> ApprovalAnswer:
    answer = replace(answer, call=run.parse(answer.call))
    call = answer.call
    taken_by = await store.approvals.consume(owner, call.id, answer.digest, run.id)
    if taken_by is None:
        raise _unknown(call.id, answer.param)
    if taken_by == run.id:
        return answer
    result = (await store.calls.load(taken_by)).get(call.dedup_key)
    if result is None or not (result.ok or result.effect == "unknown"):
        message = f"Approval request '{call.id[:MAX_QUOTED]}' was answered before."
        raise BadRequestError(message, answer.param, "invalid_value")
    run.memory[call.dedup_key] = result
    return replace(answer, approved=True)


def _unknown(request_id: str, param: str) -> BadRequestError:
    message = f"No approval request '{request_id[:MAX_QUOTED]}' of this call waits for an answer."
    return BadRequestError(message, param, "invalid_value")
