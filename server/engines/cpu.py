"""What this machine's processor computes fast, and what helps it."""

import importlib.metadata
from pathlib import Path

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Linux' names of x86 instructions for bfloat16; other processors don't emulate it."""


def emulates_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is an x86 without instructions for bfloat16.

    There it is 50 times slower than float32 (measured on AVX2).
    """
    for line in cpuinfo.read_text("utf-8").splitlines():
        name, _, values = line.partition(":")
        if name.strip() == "flags":  # an x86 has this line, an ARM processor "Features"
            return BFLOAT16_FLAGS.isdisjoint(values.split())
    return False


def intel_runtime() -> Path | None:
    """Return the file of Intel's OpenMP runtime; None where it isn't installed, as on ARM."""
    try:
        files = importlib.metadata.files("intel-openmp") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "libiomp5.so":
            path = Path(file.locate()).resolve()
            # The loader takes blanks and colons for the ends of a path.
            return path if path.is_file() and not set(" :") & set(str(path)) else None
    return None
