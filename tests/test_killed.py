"""A server that is killed in the middle of a run, with SIGKILL, and started again."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
from asking import Json
from conftest import free_port
from faulty import Upstream, http_tool
from houses import calls, eventually
from toolhouses import an_upstream

SCRIPT = Path(__file__).parent / "scripted_server.py"
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


def test_after_a_kill_what_was_done_is_there_and_is_not_done_again(
    smollm2: Path, tmp_path: Path
) -> None:
    port = free_port()
    key = {"idempotency-key": "k"}

    def ask(url: str) -> None:
        with suppress(httpx2.TransportError):
            httpx2.post(url, json=BODY, headers=key, timeout=60)

    with an_upstream() as up:
        with server(port, tmp_path, smollm2, up, SAVE, "HANG") as url:
            begun = httpx2.post(url, json={**BODY, "background": True}).json()
            assert eventually(lambda: len(up.seen) == 1, 20)
            waiting = threading.Thread(target=ask, args=(url,))
            waiting.start()
            assert eventually(lambda: len(up.seen) == 1, 1)
        waiting.join()
        with server(port, tmp_path, smollm2, up, SAVE, "Saved.") as url:
            found = httpx2.get(f"{url}/{begun['id']}").json()
            before = len(up.seen)
            again = httpx2.post(url, json=BODY, headers=key, timeout=60).json()
            replayed = httpx2.post(url, json=BODY, headers=key, timeout=60).json()

    outputs = [item.get("output") for item in found["output"] if item["type"] == "mcp_call"]
    assert (found["status"], outputs) == ("failed", ['{"ok":1}'])
    assert again["output"][-1]["content"][0]["text"] == "Saved."
    assert replayed == again
    assert len(up.seen) - before <= 1
