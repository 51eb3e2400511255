"""MCP servers that requests bring: connected while they are in use, and so many of each key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from support.mcp_over_http import replied, speaks
from support.upstream import Clock, Seen, says, upstream

from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.config.schema import RequestMcpServersConfig
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.registry import ToolRegistry, open_registry
from falsework.server.tools.request_mcp_servers import (
    IDLE_SECONDS,
    NAMED_SECONDS,
    McpServerRef,
    RequestMcpServers,
)
from falsework.server.tools.services import ToolServices
from falsework.server.tools.tool_call import ToolCall

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def servers(clock: Clock | None = None, **limits: int) -> AsyncIterator[RequestMcpServers]:
    policy = RequestMcpServersConfig(allow_hosts=("127.0.0.1",), deny_private=False, **limits)
    async with anyio.create_task_group() as owners:
        yield RequestMcpServers(policy, owners, ToolServices(), clock or Clock())
        owners.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url",
    ["http://[", "", "ftp://127.0.0.1/", "//127.0.0.1/", "http://b/"],
)
async def test_a_url_that_is_none_or_leads_elsewhere_is_not_allowed(url: str) -> None:
    async with servers() as connections:
        with pytest.raises(ToolCallError, match="not_allowed"):
            await connections.list_tools(McpServerRef("guest", url))


@pytest.mark.parametrize(
    "name",
    ["Host", "host ", "HOST", "Transfer-Encoding", "X-Forwarded-Host", "x_forwarded_for", ":path",
     "Mcp-Session-Id", "Proxy-Authorization", "X-Original-URL"],
)  # fmt: skip
async def test_a_header_that_routes_is_not_allowed_and_nothing_is_sent(name: str) -> None:
    async with upstream(always=speaks()) as up, servers() as connections:
        ref = McpServerRef("guest", f"{up.url}/mcp", ((name, "internal.example"),))
        with pytest.raises(ToolCallError, match="not_allowed"):
            await connections.list_tools(ref)

    assert up.seen == []


async def test_a_header_of_the_clients_own_reaches_its_server() -> None:
    async with upstream(always=speaks()) as up, servers() as connections:
        ref = McpServerRef("guest", f"{up.url}/mcp", (("authorization", "Bearer x"),))
        tools = await connections.list_tools(ref)

    assert "guest__t" in tools
    assert {seen.headers["authorization"] for seen in up.seen} == {"Bearer x"}
    assert {seen.headers["host"] for seen in up.seen} == {f"127.0.0.1:{up.port}"}


async def test_a_server_that_nobody_names_any_more_is_left_and_one_that_is_named_is_kept() -> None:
    clock = Clock()
    async with upstream(always=speaks()) as up, servers(clock) as connections:
        ref = McpServerRef("guest", f"{up.url}/mcp")
        for _ in range(3):
            await connections.list_tools(ref)
            clock.ahead += IDLE_SECONDS - 1
            connections.close_idle()
        kept = list(connections.connected)
        clock.ahead += 2
        connections.close_idle()

        assert (kept, list(connections.connected)) == ([ref], [])


async def test_keys_have_connections_of_their_own_and_no_more_than_their_share() -> None:
    clock = Clock()
    async with upstream(always=speaks()) as up:
        async with servers(clock, max_connections_per_key=2, max_connections=3) as connections:

            def ref(label: str, owner: str) -> McpServerRef:
                return McpServerRef(label, f"{up.url}/mcp", owner=owner)

            for label in "ab":
                await connections.list_tools(ref(label, "one"))
            with pytest.raises(ToolCallError, match="overloaded"):
                await connections.list_tools(ref("c", "one"))
            await connections.list_tools(ref("a", "two"))
            with pytest.raises(ToolCallError, match="overloaded"):
                await connections.list_tools(ref("b", "two"))
            in_use = set(connections.connected)
            clock.ahead += NAMED_SECONDS
            await connections.list_tools(ref("c", "one"))

            assert in_use == {ref("a", "one"), ref("b", "one"), ref("a", "two")}
            assert set(connections.connected) == {ref("b", "one"), ref("c", "one"), ref("a", "two")}


async def answers_late(seen: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.5)
    await says(replied(seen, "tools_call"))(seen, writer)


async def test_a_key_that_brings_many_servers_ends_nobodys_call() -> None:
    file = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}

    async def bring(registry: ToolRegistry, url: str, number: int) -> None:
        ref = McpServerRef("guest", f"{url}/{number}", owner="attacker")
        with anyio.move_on_after(3):
            with suppress(ToolCallError):
                await registry.request_mcp_servers.list_tools(ref)

    async with upstream(always=speaks(tools_call=answers_late)) as up:
        async with open_registry(parse_tools_file(file)) as registry:
            ref = McpServerRef("guest", f"{up.url}/mcp", owner="victim")
            tools = await registry.request_mcp_servers.list_tools(ref)
            run = registry.new_run("run", 20, tools)
            async with anyio.create_task_group() as attack:
                for number in range(60):
                    attack.start_soon(bring, registry, up.url, number)
                (outcome,) = await run.execute([ToolCall("1", "guest__t", "{}")], frozenset("1"))

    assert (outcome.value, outcome.attempts) == ("done", 1)


async def test_a_run_that_may_still_call_keeps_its_servers() -> None:
    clock = Clock()
    file = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}
    async with upstream(always=speaks()) as up:
        async with open_registry(parse_tools_file(file)) as registry:
            connections = registry.request_mcp_servers
            connections._clock = clock
            ref = McpServerRef("guest", f"{up.url}/mcp")
            run = registry.new_run("run", 20, await connections.list_tools(ref))
            clock.ahead += 2 * IDLE_SECONDS
            connections.close_idle()
            held = list(connections.connected)
            run.deadline = Deadline.after(0)
            connections.close_idle()

            assert (held, list(connections.connected)) == ([ref], [])
