"""The console in a real browser: headless Chromium, which runs the page's script."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from asking import Json
from faulty import http_tool, says
from houses import SETTINGS, calls, scaffold_of
from toolhouses import an_upstream, house_of
from visiting import CHAT, HELLO, sent

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


def test_without_a_key_the_page_says_so(smollm2: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"console": True, "api_key": ("one",)})
    with house_of(scaffold_of(smollm2), "x", file={}, settings=settings) as house:
        page = seen(f"{house.url}/console", tmp_path)

    assert "You didn't provide an API key" in page
