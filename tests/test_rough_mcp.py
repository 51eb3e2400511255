"""MCP servers that don't keep to the protocol: what is told of them, and who else is hurt."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty import Json, says, toolbox, upstream

from falsework.runtime.faults import Fault

pytestmark = pytest.mark.anyio

SCRIPT = str(Path(__file__).parent / "rough_mcp_server.py")


def rough(script: Json | None = None, **fields: Any) -> Json:
    command = [sys.executable, SCRIPT, json.dumps(script or {})]
    return {"command": command, "tools": ["t"], "effect": "read", **fields}


@pytest.mark.parametrize("key", ["inputSchema", "outputSchema"])
@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:PORT/"}, {"properties": {"a": {"type": "objekt"}}}]
)
async def test_a_schema_that_is_none_is_refused_and_what_it_names_is_not_fetched(
    schema: Json, key: str
) -> None:
    async with upstream(always=says({"type": "object"})) as up:
        text = json.dumps({"type": "object", **schema}).replace("PORT", str(up.port))
        tool = {"name": "t", "inputSchema": {"type": "object"}, key: json.loads(text)}
        async with toolbox(servers={"here": rough({"tools/list": {"tools": [tool]}})}) as box:
            with pytest.raises(Fault) as caught:
                await box.tools["here__t"].describe()

    assert (caught.value.kind, up.seen) == ("bad_response", [])
