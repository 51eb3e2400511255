"""The stdio transport: starts an MCP server and exchanges a line of JSON for each message.

The library's own transport reads lines of any length and any number of them on the event loop, so
that a noisy server would hold up everybody. Here a line has a size limit and a server has a budget;
one that exceeds them is killed, and started again by its supervisor.
"""

import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from anyio.abc import ByteReceiveStream, ObjectReceiveStream, ObjectSendStream, Process
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter

from falsework.server.observability import telemetry
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.mcp_link import McpLink
from falsework.server.tools.executors.output_budget import OutputBudget
from falsework.server.tools.executors.processes import kill_process
from falsework.server.tools.redaction import Redactor

CHUNK_BYTES = 2**16
EXIT_SECONDS = 2.0
"""How long a server may take to end once its input is closed."""

MAX_LOG_CHARS = 500
LOG_BURST_BYTES = 2**14
LOG_BYTES_PER_SECOND = 2**10
"""What is logged of a server's standard error; the rest is read and dropped."""

MAX_STDERR_BYTES_PER_SECOND = 2**20
"""Faster output on standard error waits in the pipe, which slows the server down."""

log = structlog.get_logger("falsework.tools")


@dataclass(frozen=True)
class StdioServer:
    """A command that speaks MCP on its standard input and output; `cap` limits its messages."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    cap: int
    redactor: Redactor

    @asynccontextmanager
    async def connect(self, link: McpLink) -> AsyncGenerator[Any]:
        """Start the server and yield its streams; end it afterwards, with its children."""
        process = await anyio.open_process(
            list(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**get_default_environment(), **self.environment},
            cwd=self.folder,
            start_new_session=True,
        )
        budget = OutputBudget(self.cap)
        to_session, from_server = anyio.create_memory_object_stream[SessionMessage](0)
        to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with from_server, to_server, anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, process, to_session, budget, link)
                tasks.start_soon(_write, process, from_session, budget, link)
                tasks.start_soon(self._log_errors, process)
                yield from_server, to_server
                tasks.cancel_scope.cancel()
        finally:
            if link.failure is None:
                await _wait_for_exit(process)
            await kill_process(process)

    async def _read(
        self,
        process: Process,
        messages: ObjectSendStream[SessionMessage],
        budget: OutputBudget,
        link: McpLink,
    ) -> None:
        assert process.stdout is not None, "it was opened with pipes"
        buffer = bytearray()
        async with messages:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    chunk = await process.stdout.receive(CHUNK_BYTES)
                    buffer += chunk
                    lines: list[bytearray] = []
                    if b"\n" in chunk:
                        *lines, buffer = buffer.split(b"\n")
                    if max(map(len, [*lines, buffer])) > self.cap:
                        link.fail(_too_large(self.cap))
                        return
                    if not budget.spend(chunk):
                        link.fail(_too_much())
                        return
                    for line in lines:
                        with suppress(ValueError):  # of what is no message nobody waits for
                            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                            await messages.send(SessionMessage(message))

    async def _log_errors(self, process: Process) -> None:
        """Log what the server writes to its standard error, up to a rate."""
        assert process.stderr is not None, "it was opened with pipes"
        budget = OutputBudget(LOG_BURST_BYTES // 2, rate=LOG_BYTES_PER_SECOND)
        async with aclosing(_lines(process.stderr)) as lines:
            async for line in lines:
                if budget.spend(line + b"\n"):
                    text = self.redactor.redact_text(line.decode("utf-8", "replace"))
                    log.warning(
                        telemetry.LOG_MCP_STDERR, server=self.name, text=text[:MAX_LOG_CHARS]
                    )


async def _write(
    process: Process,
    messages: ObjectReceiveStream[SessionMessage],
    budget: OutputBudget,
    link: McpLink,
) -> None:
    assert process.stdin is not None, "it was opened with pipes"
    async with messages:
        try:
            async for message in messages:
                if isinstance(message.message, JSONRPCRequest):
                    budget.expect_response()
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(line.encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            link.lost.set()  # the server may live, but hears nothing any more


async def _lines(stream: ByteReceiveStream) -> AsyncGenerator[bytes]:
    """Yield the lines of a stream, no faster than a rate; longer ones than a chunk are left out."""
    buffer = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            chunk = await stream.receive(CHUNK_BYTES)
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                if line.strip() and len(line) <= CHUNK_BYTES:
                    yield line
            buffer = buffer[: CHUNK_BYTES + 1]
            await anyio.sleep(len(chunk) / MAX_STDERR_BYTES_PER_SECOND)


async def _wait_for_exit(process: Process) -> None:
    """Close the server's input, as the protocol's shutdown demands, and wait for its end."""
    assert process.stdin is not None, "it was opened with pipes"
    with anyio.move_on_after(EXIT_SECONDS, shield=True):
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
        await process.wait()


def _too_large(cap: int) -> ToolCallError:
    message = f"The MCP server sent a message of more than {cap} bytes."
    return ToolCallError("too_large", message, sent=True)


def _too_much() -> ToolCallError:
    return ToolCallError("too_large", "The MCP server sent more than its calls ask for.", sent=True)
