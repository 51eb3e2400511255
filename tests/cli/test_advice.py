"""What an operator should know before a start that goes well all the same."""

from pathlib import Path

import pytest

from falsework.server.cli.model_check import advice
from falsework.server.settings import Settings

RUNTIME = Path("/site/lib/libiomp5.so")


@pytest.mark.parametrize(
    ("dtype", "processor", "intel", "emulates", "said"),
    [
        ("auto", "x86_64", RUNTIME, True, []),
        ("auto", "x86_64", None, False, ["pip install intel-openmp"]),
        ("auto", "aarch64", None, False, []),
        ("bfloat16", "x86_64", RUNTIME, True, ["leave --dtype away"]),
        ("bfloat16", "x86_64", RUNTIME, False, []),
    ],
)
def test_a_warning_says_what_to_do(
    dtype: str, processor: str, intel: Path | None, emulates: bool, said: list[str]
) -> None:
    settings = Settings.model_validate({"device": "cpu", "dtype": dtype})

    told = advice(settings, processor, intel, emulates=emulates)

    assert len(told) == len(said)
    assert all(part in line for line, part in zip(told, said, strict=True))


def test_a_gpu_needs_no_runtime_of_the_processor() -> None:
    settings = Settings(device="cuda", dtype="bfloat16")

    assert advice(settings, "x86_64", None, emulates=True) == []
