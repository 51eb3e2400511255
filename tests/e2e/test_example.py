"""The example of the README runs: the real server, the real model, three real tools."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from support.server_process import KEY, serving

ROOT = Path(__file__).parents[2]
CRM = ROOT / "examples/crm"


@pytest.mark.timeout(400)
def test_three_steps_run_as_they_are_and_with_faults(smollm2: Path, tmp_path: Path) -> None:
    del smollm2  # prepared
    settings = ["--tools", str(CRM / "tools.yaml"), "--console", "--max-model-len", "4096"]
    with serving("smollm2", tmp_path / "log.txt", *settings) as server:
        command = [sys.executable, CRM / "run.py", "--base-url", server.url, "--key", KEY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        metrics = httpx2.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {KEY}"})

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("The scoring service fails")
    assert '"name":"Ada"' in first
    assert '"score":51' in first
    assert '"changed":1' in first
    assert "the scoring service is not available" in second
    assert second.count("attempt 2") >= 2
    assert "Writes of ada@example.com that were applied: 1" in second
    assert "vllm:" in metrics.text
    assert 'falsework_fallbacks_total{to="value",tool="score_customer"} 1.0' in metrics.text
    assert json.dumps(KEY) not in server.says()
