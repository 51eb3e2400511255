"""What every test may ask for: the built-in model's folder, and a server that really runs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.documented_commands import clone
from support.server_process import Server, serving

from falsework.server.models import resolve_model
from falsework.server.observability.logging import configure_logging
from falsework.server.storage.store import Store

if TYPE_CHECKING:
    from falsework.server.generation.turn import TurnBuilder


MARKED = {"engine": {"server", "random_server"}, "slow": {"two_starts", "postgresql_url"}}
"""Marks of the tests that ask for these fixtures."""


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _logs_of_the_server() -> None:
    """Log as the server does; what structlog does otherwise draws each traceback for seconds."""
    configure_logging("debug")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Give the folder of the built-in model, prepared if need be."""
    return Path(resolve_model("smollm2", print))


@pytest.fixture(scope="session")
def plain(smollm2: Path) -> "TurnBuilder":
    """Give the scaffold of a model without a think block."""
    from support.scripted_app import scaffold_of  # noqa: PLC0415 - it takes seconds to import

    return scaffold_of(smollm2)


@pytest.fixture(scope="session")
def thinker(smollm2: Path) -> "TurnBuilder":
    """Give the scaffold of a model that thinks first."""
    from support.scripted_app import scaffold_of  # noqa: PLC0415 - it takes seconds to import

    return scaffold_of(smollm2, thinks=True)


@pytest.fixture(scope="session")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the real server with the real model."""
    assert smollm2.is_dir()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving("smollm2", log, "--max-model-len", "4096") as running:
        yield running


@pytest.fixture(scope="session")
def cloned(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a clone that is ready to run, the built-in model prepared."""
    assert smollm2.is_dir()
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    from support.databases import postgresql, programs  # noqa: PLC0415 - it needs this file's ports

    if programs() is None:
        pytest.skip("PostgreSQL isn't installed here: on Debian, the package postgresql")
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/kept.db"
    kept: str = request.getfixturevalue("postgresql_url")
    return kept


@pytest.fixture
async def records(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = await Store.connect(url, request.node.name)
    yield made
    await made.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a running server with the real engine, or takes long to prepare."""
    for item in items:
        needed = set(getattr(item, "fixturenames", ()))
        for mark, fixtures in MARKED.items():
            if fixtures & needed:
                item.add_marker(mark)
