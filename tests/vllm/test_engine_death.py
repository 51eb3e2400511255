"""What follows when the engine's process is killed, and when the server's is."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support.random_model import make_random
from support.scripted_app import eventually
from support.server_process import Server, serving

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = ("--served-model-name", "m", "--max-model-len", "4096", "--kv-cache-gib", "0.1")
LONG: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Talk."}],
    "max_tokens": 4000,
    "logit_bias": {"2": -100},
}
BACK_WITHIN = 60


@pytest.fixture(scope="module")
def random_model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(tmp_path_factory.mktemp("random"), smollm2)


def engine_of(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children(recursive=True)
    (engine,) = [child for child in children if child.name().startswith("VLLM::Engine")]
    return engine


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def post(server: Server, **fields: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {server.key}"}
    url = f"{server.url}/v1/chat/completions"
    return httpx2.post(url, json={**LONG, **fields}, headers=headers, timeout=60)


def streamed(server: Server) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a long reply."""
    headers = {"authorization": f"Bearer {server.key}"}
    url = f"{server.url}/v1/chat/completions"
    body = {**LONG, "stream": True}
    with httpx2.stream("POST", url, json=body, headers=headers, timeout=60) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def test_a_killed_engine_is_started_again_and_then_no_more(
    random_model: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    with serving(
        random_model, log, *SETTINGS, "--engine-restarts", "1", status=os.EX_SOFTWARE
    ) as server:
        chunks = streamed(server)
        next(chunks)

        engine_of(server).kill()
        killed = time.monotonic()
        *_, last = chunks
        refused = post(server)
        answered = eventually(lambda: post(server, max_tokens=4).is_success, BACK_WITHIN)
        back = time.monotonic() - killed
        ready = httpx2.get(f"{server.url}/ready")
        engine_of(server).kill()
        code = server.process.wait(timeout=30)

    assert last["error"]["code"] == "engine_unavailable"
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_unavailable"
    assert int(refused.headers["retry-after"]) > 0
    assert answered, server.says()
    assert back < BACK_WITHIN
    assert ready.is_success
    assert code == os.EX_SOFTWARE
    assert "resource_tracker" not in server.says()


def test_the_engine_ends_with_a_server_that_is_killed(random_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with serving(random_model, log, *SETTINGS, status=-signal.SIGKILL) as server:
        engine = engine_of(server)

        server.process.kill()

        assert eventually(lambda: has_ended(engine), 5)
