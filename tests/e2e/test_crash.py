"""A server that is killed in the middle of a run, with SIGKILL, and started again."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from support.chat_bodies import Json
from support.scripted_app import calls, eventually
from support.server_process import free_port
from support.tool_app import an_upstream
from support.upstream import Upstream, http_tool

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "support" / "scripted_process.py"
SAVE = calls(("save", '{"id": 1}'))
BODY: Json = {"model": "smollm2", "input": "?", "tools": [{"type": "server_tool", "name": "save"}]}


@contextmanager
def server(port: int, folder: Path, model: Path, up: Upstream, *turns: str) -> Iterator[str]:
    """Run a server; it is killed at the end, whatever it does."""
    tools = json.dumps({"tools": [http_tool(up, "save", method="POST")]})
    database = f"sqlite:///{folder}/kept.db"
    command = [sys.executable, SCRIPT, str(port), database, model, tools, *turns]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}/v1/responses"
    finally:
        process.kill()
        process.communicate()


def applied(folder: Path) -> bool:
    """Tell whether the database knows of a write that was done."""
    with closing(sqlite3.connect(folder / "kept.db")) as database:
        rows = database.execute("select outcome from falsework_outcomes").fetchall()
    return any('"applied"' in outcome for (outcome,) in rows)


def test_after_a_kill_a_response_can_be_retrieved_with_what_was_done(
    smollm2: Path, tmp_path: Path
) -> None:
    port = free_port()
    with an_upstream() as up:
        with server(port, tmp_path, smollm2, up, SAVE, "HANG") as url:
            begun = httpx2.post(url, json={**BODY, "background": True}).json()
            here = f"{url}/{begun['id']}"
            assert eventually(lambda: '"completed"' in httpx2.get(here).text, 20)
        with server(port, tmp_path, smollm2, up, "x") as url:
            found = httpx2.get(here).json()

    outputs = [item["output"] for item in found["output"] if item["type"] == "mcp_call"]
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert outputs == ['{"ok":1}']


def test_after_a_kill_the_same_request_does_not_do_again_what_was_done(
    smollm2: Path, tmp_path: Path
) -> None:
    port = free_port()
    key = {"idempotency-key": "k"}

    def ask(url: str) -> None:
        with suppress(httpx2.TransportError):
            httpx2.post(url, json=BODY, headers=key, timeout=60)

    with an_upstream() as up:
        with server(port, tmp_path, smollm2, up, SAVE, "HANG") as url:
            waiting = threading.Thread(target=ask, args=(url,))
            waiting.start()
            assert eventually(lambda: up.seen and applied(tmp_path), 20)
        waiting.join()
        with server(port, tmp_path, smollm2, up, SAVE, "Saved.") as url:
            again = httpx2.post(url, json=BODY, headers=key, timeout=60).json()
            replayed = httpx2.post(url, json=BODY, headers=key, timeout=60).json()

    assert again["output"][-1]["content"][0]["text"] == "Saved."
    assert replayed == again
    assert len(up.seen) == 1
