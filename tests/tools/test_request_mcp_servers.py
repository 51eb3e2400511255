"""MCP servers that requests bring: connected while they are asked for, and never many."""

import anyio
import pytest
from support.mcp_processes import over_http
from support.server_process import free_port

from falsework.server.tools.config.schema import RequestMcpServersConfig
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.request_mcp_servers import (
    MAX_CONNECTIONS,
    McpServerRef,
    RequestMcpServers,
)

pytestmark = pytest.mark.anyio

OURS = RequestMcpServersConfig(allow_hosts=("127.0.0.1",), deny_private=False)


@pytest.mark.parametrize(
    "url",
    ["http://[", "", "ftp://127.0.0.1/", "//127.0.0.1/", "http://b/"],
)
async def test_a_url_that_is_none_or_leads_elsewhere_is_not_allowed(url: str) -> None:
    async with anyio.create_task_group() as owners:
        with pytest.raises(ToolCallError, match="not_allowed"):
            await RequestMcpServers(OURS, owners).list_tools(McpServerRef("guest", url))


async def test_a_server_that_nobody_names_any_more_is_left_and_one_that_is_named_is_kept() -> None:
    port = free_port()
    invitation = McpServerRef("guest", f"http://127.0.0.1:{port}/mcp")
    with over_http(port):
        async with anyio.create_task_group() as owners:
            guests = RequestMcpServers(OURS, owners, idle=1.5)
            for _ in range(3):
                tools = await guests.list_tools(invitation)
                await anyio.sleep(0.6)
            kept = guests._connections[invitation].server
            assert (kept.restarts, kept.connected, "guest__add" in tools) == (0, True, True)
            await anyio.sleep(2)

            assert (len(guests._connections), kept.connected) == (0, False)


async def test_however_many_servers_are_named_no_more_are_kept_than_there_is_room_for() -> None:
    async with anyio.create_task_group() as owners:
        guests = RequestMcpServers(OURS, owners)
        for number in range(MAX_CONNECTIONS + 5):
            url = f"http://127.0.0.1:9/{number}"
            with anyio.move_on_after(0.01):
                await guests.list_tools(McpServerRef("guest", url))
        await anyio.sleep(0.01)

        assert len(guests._connections) == MAX_CONNECTIONS
        assert f"http://127.0.0.1:9/{MAX_CONNECTIONS + 4}" in {
            one.url for one in guests._connections
        }
        owners.cancel_scope.cancel()
