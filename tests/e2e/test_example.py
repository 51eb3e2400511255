"""The example of the README runs as it stands there: real server, real model, real tools."""

from pathlib import Path

import pytest
from support.documented_commands import RUN_CRM, SERVE_CRM, run, served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def test_the_example_runs_as_it_is_and_with_faults(cloned: Path) -> None:
    with served(SERVE_CRM, cloned, 4096):
        said = run(RUN_CRM, cloned)
        metrics = run("curl --silent http://127.0.0.1:8000/metrics", cloned)

    first, second = said.split("The scoring service fails")
    assert '"name":"Ada"' in first
    assert '"score":51' in first
    assert '"changed":1' in first
    assert "the scoring service is not available" in second
    assert second.count("attempt 2") >= 2
    assert "Writes of ada@example.com that were applied: 1" in second
    assert "vllm:" in metrics
    assert 'falsework_fallbacks_total{to="value",tool="score_customer"} 1.0' in metrics
