"""The log: a line of JSON each, and nothing in it that nobody should read."""

import json
from collections.abc import Iterator

import pytest
import structlog

from falsework.server.watching.logs import configure


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> structlog.typing.FilteringBoundLogger:
    del capsys  # standard error isn't a terminal here
    configure("info")
    return structlog.get_logger("tests")  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_line_is_json_with_the_request_it_belongs_to(
    log: structlog.typing.FilteringBoundLogger, capsys: pytest.CaptureFixture[str]
) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        log.info("request", ms=3)

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["ms"], line["request_id"]) == ("request", 3, "req_1")


def test_a_failure_is_told_with_its_place_and_without_the_values_there(
    log: structlog.typing.FilteringBoundLogger, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "Bearer hunter2"
    try:
        raise RuntimeError(len(key))
    except RuntimeError:
        log.exception("request failed")

    said = capsys.readouterr().err
    assert "test_logs.py" in said
    assert "hunter2" not in said


def test_what_is_below_the_level_is_not_said(
    log: structlog.typing.FilteringBoundLogger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.debug("detail")

    assert capsys.readouterr().err == ""
