"""Writes the lists of docs/architecture.md and docs/files.md anew: `make docs`.

The life of a request is what a trace of the server sees, the engine scripted, all else real. What
a file is for is the first line of its docstring.
"""

import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from falsework.server.models import resolve_model
from support.call_trace import trace_chat, trace_response, visited
from support.documents import ROOT
from support.import_graph import folder_of, sources
from support.layers import ROOMS
from support.scripted_app import scaffold_of

PAGES = (ROOT / "docs/architecture.md", ROOT / "docs/files.md")


def purpose_of(path: str) -> str:
    """Return the first line of a file's docstring."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))
    assert docstring, f"{path} has no docstring"
    return docstring.splitlines()[0].replace("|", "\\|")


def link(path: str) -> str:
    return f"[{path}](../{path})"


def life(files: Iterable[str]) -> str:
    return "".join(
        f"{number}. {link(path)}: {purpose_of(path)}\n" for number, path in enumerate(files, 1)
    )


def index() -> str:
    """Return a table for each folder, with a row for each of its files."""
    files = [path for path in sources(ROOT, ROOMS) if (ROOT / path).read_text().strip()]
    files = [path for path in files if not path.endswith("__init__.py")]
    tables = []
    for folder in sorted(set(map(folder_of, files))):
        rows = (
            f"| {path.rpartition('/')[2]} | {purpose_of(path)} |"
            for path in files
            if folder_of(path) == folder
        )
        tables.append("\n".join([f"| `{folder}/` | |", "|---|---|", *rows]) + "\n")
    return "\n".join(tables)


def lists(model: Path) -> dict[str, str]:
    """Return every list by its name."""
    return {
        "chat": life(visited(trace_chat(scaffold_of(model)))),
        "response": life(visited(trace_response(scaffold_of(model)))),
        "files": index(),
    }


def written(page: str, made: dict[str, str]) -> str:
    """Return the page with the lists that it has a place for, each between two comments."""
    for name, text in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in page:
            continue
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    made = lists(Path(resolve_model("smollm2", lambda _: None)))
    if sys.argv[1:] == ["--json"]:
        sys.stdout.write(json.dumps(made) + "\n")
    else:
        for each in PAGES:
            each.write_text(written(each.read_text(), made))
