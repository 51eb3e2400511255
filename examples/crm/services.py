"""The two HTTP services of the example, and a switch for what goes wrong with them.

    python examples/crm/services.py

`POST /faults {"score": ["503", "hang"], "stage": ["lost"]}` starts anew, and the next requests fail
like that; it answers how often which customer was written to until then.
"""

import asyncio
from collections import Counter
from typing import Any

import uvicorn
from customers import connected, reset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PORT = 8765

faults: dict[str, list[str]] = {"score": [], "stage": []}
done: dict[str, Any] = {}
"""Writes by their Idempotency-Key: the same key never acts twice."""
applied: Counter[str] = Counter()
"""How often each customer was written to."""


async def _fault(name: str) -> Response | None:
    fault = faults[name].pop(0) if faults[name] else ""
    if fault == "hang":
        await asyncio.sleep(30)
    return Response(status_code=int(fault)) if fault.isdigit() else None


async def score(request: Request) -> Response:
    """Score a customer."""
    email = (await request.json())["email"]
    return await _fault("score") or JSONResponse(
        {"email": email, "score": 20 + sum(email.encode()) % 80}
    )


async def set_stage(request: Request) -> Response:
    """Write a customer's stage; `lost` writes and then says nothing."""
    key = request.headers.get("idempotency-key", "")
    email, stage = request.path_params["email"], (await request.json())["stage"]
    lost = faults["stage"][:1] == ["lost"]
    failed = await _fault("stage")
    if failed:
        return failed
    if key not in done:
        database = connected()
        rows = database.execute("update customer set stage = ? where email = ?", [stage, email])
        database.commit()
        done[key] = {"email": email, "stage": stage, "changed": rows.rowcount}
        database.close()
        applied[email] += 1
    if lost:
        await asyncio.sleep(30)
    return JSONResponse(done[key])


async def inject(request: Request) -> Response:
    """Start anew, and set what goes wrong next."""
    before = dict(applied)
    reset()
    done.clear()
    applied.clear()
    faults.update({"score": [], "stage": []} | await request.json())
    return JSONResponse({"applied": before})


app = Starlette(
    routes=[
        Route("/score", score, methods=["POST"]),
        Route("/customers/{email}", set_stage, methods=["PATCH"]),
        Route("/faults", inject, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="critical", timeout_graceful_shutdown=1)
