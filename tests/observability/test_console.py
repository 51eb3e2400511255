"""The console in a real browser: headless Chromium, which runs the page's script."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, calls, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says

from falsework.server.observability import telemetry

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def seen(url: str, folder: Path) -> str:
    """Return the page's elements as they stand once its script has run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no browser here: on Debian, the package chromium")
    options = [*QUIET, f"--user-data-dir={folder}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [browser, *options, url], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_the_last_requests_and_the_breakers_are_seen_in_a_browser(
    smollm2: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"console": True})
    asked: Json = {**HELLO, "tools": [{"type": "server_tool", "name": "look"}]}
    with an_upstream(says({}, 503), says("fine")) as up:
        file = {"tools": [http_tool(up)]}
        said = [calls(("look", "{}")), "Fine."]
        with house_of(scaffold_of(smollm2), *said, file=file, settings=settings) as house:
            sent(house, "POST", CHAT, asked)
            page = seen(f"{house.url}/console", tmp_path)

    assert "POST /v1/chat/completions" in page
    assert "execute_tool look" in page
    assert "attempt 2" in page
    assert len(re.findall(r'class="bar failed"', page)) == 1
    assert up.url in page
    assert 'class="closed">closed' in page


HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def test_a_hostile_name_is_text_and_an_open_breaker_and_latencies_are_seen(
    smollm2: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"console": True})
    asked: Json = {**HELLO, "tools": [{"type": "server_tool", "name": "look"}]}
    with an_upstream(always=says({}, 500)) as up:
        file = {"tools": [http_tool(up, breaker={"min_calls": 1, "open_for": "60s"})]}
        said = [calls(("look", "{}")), "No."]
        with house_of(scaffold_of(smollm2), *said, file=file, settings=settings) as house:
            sent(house, "POST", CHAT, asked)
            with telemetry.TRACER.start_as_current_span(HOSTILE, kind=SpanKind.SERVER) as span:
                span.set_attribute(HOSTILE, HOSTILE)
            page = seen(f"{house.url}/console", tmp_path)

    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<img" not in page
    assert "<title>Falsework</title>" in page
    assert 'class="open">open' in page
    assert re.search(r'title="[1-9]\d* requests took at most [\d.]+ s" style="height: 100%', page)


def test_the_page_admits_no_script_but_its_own_and_no_frame(smollm2: Path) -> None:
    settings = SETTINGS.model_copy(update={"console": True})
    with house_of(scaffold_of(smollm2), "x", file={}, settings=settings) as house:
        policy = sent(house, "GET", "/console").headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_without_a_key_the_page_says_so(smollm2: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"console": True, "api_key": ("one",)})
    with house_of(scaffold_of(smollm2), "x", file={}, settings=settings) as house:
        page = seen(f"{house.url}/console", tmp_path)

    assert "You didn't provide an API key" in page
