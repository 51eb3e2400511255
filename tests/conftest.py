"""What every test may ask for: the built-in model's folder."""

from pathlib import Path

import pytest

from falsework.server.builtin import prepare


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Give the folder of the built-in model, prepared if need be."""
    return Path(prepare("smollm2", print))
