"""Two replicas on Ray Serve with a scripted engine; `make test-ray` installs Ray and runs this."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from support.server_process import eventually, free_port
from support.upstream import http_tool, says

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray isn't installed here: `make test-ray`", allow_module_level=True)

from support.ray_app import FOUND
from support.tool_app import an_upstream

from falsework.server.replicas.application import application, build
from falsework.server.settings import ConfigError

TOOL = [{"type": "server_tool", "name": "look"}]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/support/ray_process.py"


@contextmanager
def replicas(port: int, folder: Path, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Run replicas in a cluster of their own; a line of standard input is the next arguments."""
    database = {"database": f"sqlite:///{folder}/kept.db", "cpus_per_replica": 0.1}
    command = [sys.executable, SCRIPT, str(port), json.dumps({**database, **arguments})]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.communicate()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give two replicas, which say their names."""
    port = free_port()
    with replicas(port, tmp_path_factory.mktemp("ray"), replicas=2):
        yield f"http://127.0.0.1:{port}/v1"


def response(url: str, **fields: Any) -> dict[str, Any]:
    sent = {"model": "smollm2", **fields}
    reply = httpx2.post(f"{url}/responses", json=sent, timeout=60)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def made_by(of: dict[str, Any]) -> str:
    said: str = of["output"][-1]["content"][0]["text"]
    return said


def test_conversations_are_spread_and_each_stays_at_its_replica(url: str) -> None:
    chains = []
    for number in range(12):
        first = response(url, input=f"trip {number}")
        second = response(url, input="and?", previous_response_id=first["id"])
        third = response(url, input="then?", previous_response_id=second["id"])
        chains.append({made_by(each) for each in (first, second, third)})

    assert [len(chain) for chain in chains] == [1] * 12
    assert len(set.union(*chains)) == 2


def test_every_replica_knows_what_the_others_made(url: str) -> None:
    made = [response(url, input=f"question {number}") for number in range(6)]
    # An id of another session asks the replica that this session belongs to.
    seen = [
        response(url, input="?", previous_response_id=each["id"], prompt_cache_key="one place")
        for each in made
    ]

    assert len({made_by(each) for each in made}) == 2
    assert len({made_by(each) for each in seen}) == 1


def test_a_request_that_comes_again_to_another_replica_gets_its_first_reply(url: str) -> None:
    def ask(session: str) -> httpx2.Response:
        headers = {"idempotency-key": "again", "x-session-id": session}
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "?"}]}
        return httpx2.post(f"{url}/chat/completions", json=body, headers=headers, timeout=60)

    first, *others = [ask(f"session {number}") for number in range(8)]

    assert first.status_code == 200
    assert {other.json()["id"] for other in others} == {first.json()["id"]}


def test_a_refusal_comes_through_as_the_server_says_it(url: str) -> None:
    refused = httpx2.post(
        f"{url}/responses", json={"model": "smollm2", "input": "?", "tools": 7}, timeout=60
    )

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tools"


def test_a_replica_that_is_scaled_down_finishes_its_tools_write(tmp_path: Path) -> None:
    port = free_port()
    told: list[httpx2.Response] = []

    def ask(number: int) -> None:
        asked = {"model": "smollm2", "input": f"look {number}", "tools": TOOL}
        url = f"http://127.0.0.1:{port}/v1/responses"
        told.append(httpx2.post(url, json=asked, timeout=120))

    with an_upstream(always=says({FOUND: True}, after=5)) as up:
        tools = tmp_path / "tools.yaml"
        tools.write_text(yaml.safe_dump({"tools": [http_tool(up, "look", method="POST")]}))
        with replicas(port, tmp_path, replicas=2, tools=str(tools)) as process:
            clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
            for client in clients:
                client.start()
            assert eventually(lambda: len(up.seen) == 8, 20)
            assert process.stdin is not None
            process.stdin.write(json.dumps({"replicas": 1, "tools": str(tools)}) + "\n")
            process.stdin.flush()
            for client in clients:
                client.join()

    assert [reply.status_code for reply in told] == [200] * 8
    assert len(up.seen) == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"replica": 2}, "no such setting"),
        ({"replicas": 0}, "replicas: "),
        ({"replicas": 4, "max_replicas": 2}, "max_replicas: 2 is below replicas"),
        ({"port": 9000}, "port: Serve's proxies listen"),
        ({"replicas": 2, "database": "sqlite://"}, "database: replicas share"),
        ({"max_tools": "many"}, "max-tools: Input should be"),
    ],
)
def test_wrong_arguments_are_told_before_anything_starts(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(arguments)


def test_settings_and_scale_reach_the_deployment() -> None:
    made = application(
        {"max_replicas": "8", "replicas": "2", "device": "cuda", "tensor_parallel_size": "4",
         "drain_seconds": "60", "max_concurrent_requests": "100"},
        None,  # type: ignore[arg-type] - never started here
    )  # fmt: skip
    deployment = made._bound_deployment

    assert deployment.ray_actor_options["num_gpus"] == 4
    assert deployment.max_ongoing_requests == 100
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 660
    assert deployment._deployment_config.autoscaling_config.max_replicas == 8


def test_the_documented_deployment_is_one_that_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415 - only where Ray is

    file = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    (each,) = ServeDeploySchema.model_validate(file).applications

    assert build(dict(each.args))
