"""What the engine's processes inherit, so that they share the cores with others."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from falsework.server.engines.cpu import intel_runtime
from falsework.server.engines.vllm.environment import inherited, openmp_variables

INTEL = Path("/site/lib/libiomp5.so")


@pytest.mark.parametrize(
    ("given", "preloaded"),
    [
        ({}, "/site/lib/libiomp5.so"),
        (
            {"LD_PRELOAD": "/usr/lib/libtcmalloc.so"},
            "/usr/lib/libtcmalloc.so:/site/lib/libiomp5.so",
        ),
    ],
)
def test_intels_runtime_is_preloaded_beside_what_the_operator_preloads(
    given: Mapping[str, str], preloaded: str
) -> None:
    variables = openmp_variables(given, INTEL)

    assert variables["LD_PRELOAD"] == preloaded
    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    "runtime", ["/usr/lib/libgomp.so.1", "/usr/lib/libomp.so.5", "libiomp5.so"]
)
def test_a_runtime_that_the_operator_preloads_stays_the_only_one(runtime: str) -> None:
    assert "LD_PRELOAD" not in openmp_variables({"LD_PRELOAD": runtime}, INTEL)


def test_without_intels_runtime_threads_do_not_wait_actively() -> None:
    variables = openmp_variables({}, None)

    assert variables["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "LD_PRELOAD" not in variables


def test_what_the_operator_chose_is_left_alone() -> None:
    given = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}

    assert openmp_variables(given, INTEL).keys() == {"LD_PRELOAD"}


def test_only_processes_that_are_started_within_inherit_the_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    before = dict(os.environ)
    told = [sys.executable, "-c", "import os; print(os.environ['KMP_BLOCKTIME'])"]

    with inherited({"KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "2"}):
        within = subprocess.run(told, capture_output=True, text=True, check=True).stdout

    assert within == "1\n"
    assert dict(os.environ) == before


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="Intel's runtime is for x86-64")
def test_intels_runtime_is_installed_with_the_engine() -> None:
    runtime = intel_runtime()

    assert runtime is not None
    assert runtime.read_bytes().startswith(b"\x7fELF")
