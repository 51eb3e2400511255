"""The variables that the engine's processes inherit: OpenMP on a CPU, and what stays unsaid."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

MANY_CORES = 4
"""From this many cores on, one is left to the server."""

PRELOAD = "LD_PRELOAD"

RUNTIMES = ("libiomp", "libomp", "libgomp")
"""How the files of OpenMP's runtimes begin: there must be one of them only."""

WAIT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads wait asleep, see `wait_policy`, which lets those of Intel's runtime spin as well."""

QUIET = {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def openmp_variables(given: Mapping[str, str], intel: Path | None) -> dict[str, str]:
    """Return OpenMP's variables for a CPU, beside the variables `given`, which win.

    `intel` is the file of Intel's runtime, None where there is none for this machine.
    """
    preloaded = given.get(PRELOAD, "")
    chosen = {"OMP_NUM_THREADS": str(_threads()), **WAIT}
    if intel and not any(runtime in preloaded for runtime in RUNTIMES):
        chosen[PRELOAD] = f"{preloaded}:{intel}".removeprefix(":")
    return {name: value for name, value in chosen.items() if name == PRELOAD or name not in given}


@contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Let the processes that are started within inherit `variables`, and later ones not.

    Later ones are those of tools. vLLM sets LD_PRELOAD too, which is taken back as well.
    """
    before = {name: os.environ.get(name) for name in {PRELOAD, *variables}}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _threads() -> int:
    """Return how many threads compute: all cores of a small machine, all but one of a large one."""
    cores = psutil.cpu_count(logical=False) or 1
    usable = min(cores, len(os.sched_getaffinity(0)))
    return usable if usable < MANY_CORES else usable - 1
