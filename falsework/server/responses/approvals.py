"""Calls that wait for the client's approval, and what it says to them; each answer counts once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from falsework.runtime.runs import Run
from falsework.runtime.tools import Asked
from falsework.server.records import Records
from falsework.server.refusals import BadRequest
from falsework.server.responses.items import full_name
from falsework.server.responses.wireitems import ApprovalRequest, ApprovalResponse, read

Json = dict[str, Any]


@dataclass(frozen=True)
class Approval:
    """What a client said to a call that waited for it; `seal` is what the call was asked as."""

    asked: Asked
    approved: bool
    reason: str
    seal: str
    where: str


def approvals(
    before: Sequence[Json], items: Sequence[Json], served: frozenset[str]
) -> list[Approval]:
    """Return the answers among a request's items that no call has followed yet.

    `before` are the items of the conversation so far, `served` the tools that the request offers.
    """
    known = [*before, *items]
    asked = {each["id"]: each for each in known if each.get("type") == "mcp_approval_request"}
    done = {each.get("approval_request_id") for each in known if each.get("type") == "mcp_call"}
    said: dict[str, Approval] = {}
    for position, item in enumerate(items):
        answer = read(item, ("input", position))
        if not isinstance(answer, ApprovalResponse) or answer.approval_request_id in done:
            continue
        where = f"input[{position}].approval_request_id"
        request_id = answer.approval_request_id
        if request_id not in asked or request_id in said:
            raise _unknown(request_id, where)
        said[request_id] = _approval(asked[request_id], answer, served, where)
    return list(said.values())


def _approval(item: Json, answer: ApprovalResponse, served: frozenset[str], where: str) -> Approval:
    request = read(item, ("input",))
    assert isinstance(request, ApprovalRequest), "its type says so"
    name = full_name(request.server_label, request.name, served)
    if name not in served:
        message = f"This call is of '{name[:64]}', which isn't among the tools of this request."
        raise BadRequest(message, where, "invalid_value")
    asked = Asked(request.id, name, request.arguments)
    return Approval(asked, answer.approve, answer.reason or "", seal(item), where)


def seal(item: Json) -> str:
    """Return what tells a request for approval from one that was changed since."""
    call = json.dumps([item["server_label"], item["name"], item["arguments"]])
    return hashlib.sha256(call.encode()).hexdigest()


async def taken(
    answers: Sequence[Approval], owner: str, run: Run, records: Records
) -> list[Approval]:
    """Take answers for a run; what another run has taken and done is remembered, not done again."""
    return [await _taken(each, owner, run, records) for each in answers]


async def _taken(answer: Approval, owner: str, run: Run, records: Records) -> Approval:
    by = await records.take_approval(owner, answer.asked.id, answer.seal, run.id)
    if by is None:
        raise _unknown(answer.asked.id, answer.where)
    if by == run.id:
        return answer
    identity = run.identity(answer.asked)
    known = (await records.outcomes(by)).get(identity)
    if known is None or not (known.ok or known.effect == "unknown"):
        message = f"Approval request '{answer.asked.id[:100]}' was answered before."
        raise BadRequest(message, answer.where, "invalid_value")
    run.memory[identity] = known
    return replace(answer, approved=True)


def _unknown(request_id: str, where: str) -> BadRequest:
    message = f"No approval request '{request_id[:100]}' of this call waits for an answer."
    return BadRequest(message, where, "invalid_value")
