"""Calls that wait for the client's approval, and what it says to them; each answer counts once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from falsework.server.api.responses.item_schema import (
    McpApprovalRequest,
    McpApprovalResponse,
    parse_item,
)
from falsework.server.api.responses.messages import qualified_tool_name
from falsework.server.errors import BadRequestError
from falsework.server.storage.store import Store
from falsework.server.tools.tool_call import ToolCall
from falsework.server.tools.tool_run import ToolRun

Json = dict[str, Any]


@dataclass(frozen=True)
class ApprovalAnswer:
    """What a client said to a call that waited for it; `seal` is what the call was asked as."""

    asked: ToolCall
    approved: bool
    reason: str
    seal: str
    where: str


def parse_approvals(
    before: Sequence[Json], items: Sequence[Json], served: frozenset[str]
) -> list[ApprovalAnswer]:
    """Return the answers among a request's items that no call has followed yet.

    `before` are the items of the conversation so far, `served` the tools that the request offers.
    """
    known = [*before, *items]
    asked = {each["id"]: each for each in known if each.get("type") == "mcp_approval_request"}
    done = {each.get("approval_request_id") for each in known if each.get("type") == "mcp_call"}
    said: dict[str, ApprovalAnswer] = {}
    for position, item in enumerate(items):
        answer = parse_item(item, ("input", position))
        if not isinstance(answer, McpApprovalResponse) or answer.approval_request_id in done:
            continue
        where = f"input[{position}].approval_request_id"
        request_id = answer.approval_request_id
        if request_id not in asked or request_id in said:
            raise _unknown(request_id, where)
        said[request_id] = _approval(asked[request_id], answer, served, where)
    return list(said.values())


def _approval(
    item: Json, answer: McpApprovalResponse, served: frozenset[str], where: str
) -> ApprovalAnswer:
    request = parse_item(item, ("input",))
    assert isinstance(request, McpApprovalRequest), "its type says so"
    name = qualified_tool_name(request.server_label, request.name, served)
    if name not in served:
        message = f"This call is of '{name[:64]}', which isn't among the tools of this request."
        raise BadRequestError(message, where, "invalid_value")
    asked = ToolCall(request.id, name, request.arguments)
    return ApprovalAnswer(asked, answer.approve, answer.reason or "", call_digest(item), where)


def call_digest(item: Json) -> str:
    """Return what tells a request for approval from one that was changed since."""
    call = json.dumps([item["server_label"], item["name"], item["arguments"]])
    return hashlib.sha256(call.encode()).hexdigest()


async def consume_approvals(
    answers: Sequence[ApprovalAnswer], owner: str, run: ToolRun, records: Store
) -> list[ApprovalAnswer]:
    """Take answers for a run; what another run has taken and done is remembered, not done again."""
    return [await _taken(each, owner, run, records) for each in answers]


async def _taken(
    answer: ApprovalAnswer, owner: str, run: ToolRun, records: Store
) -> ApprovalAnswer:
    by = await records.consume_approval(owner, answer.asked.id, answer.seal, run.id)
    if by is None:
        raise _unknown(answer.asked.id, answer.where)
    if by == run.id:
        return answer
    identity = run.dedup_key(answer.asked)
    known = (await records.get_call_results(by)).get(identity)
    if known is None or not (known.ok or known.effect == "unknown"):
        message = f"Approval request '{answer.asked.id[:100]}' was answered before."
        raise BadRequestError(message, answer.where, "invalid_value")
    run.memory[identity] = known
    return replace(answer, approved=True)


def _unknown(request_id: str, where: str) -> BadRequestError:
    message = f"No approval request '{request_id[:100]}' of this call waits for an answer."
    return BadRequestError(message, where, "invalid_value")
