"""The fenced blocks of the documents: programs, commands, tools files, and what they print."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the line at which its text begins."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands of a console block, each as it is typed, comments left out.

        Where some line has a prompt, the others are what is printed.
        """
        lines = self.text.splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return tuple(_commands(typed or lines))


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks of all documents, or those of one language."""
    every = [block for name in DOCUMENTS for block in blocks_of(name, (ROOT / name).read_text())]
    return [block for block in every if language in {None, block.language}]


def blocks_of(name: str, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(name, line, found[1], found[2])


def block(document: str, language: str, number: int = 0) -> Block:
    """Return one block of a document, counted among those of its language."""
    return [each for each in blocks(language) if each.document == document][number]


def _commands(lines: list[str]) -> Iterator[str]:
    """Join lines while a quotation or a backslash leaves them open."""
    begun = ""
    for line in lines:
        begun += line
        if not _is_whole(begun):
            begun += "\n"
        else:
            yield re.sub(r"\s+#.*", "", begun) if "\n" not in begun else begun
            begun = ""
    assert not begun, f"a command has no end: {begun}"


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
