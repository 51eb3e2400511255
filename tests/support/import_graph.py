"""Who imports whom: the imports between our files, and the laws that they may break.

Paths are relative to the repository and written with slashes: `server/tools/errors.py`. A place is
a file, or a folder with all files that lie directly in it.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "falsework"

Layers = Sequence[Sequence[str]]
"""Places from the ground up; those of one layer don't know each other."""


@dataclass(frozen=True)
class Import:
    """One name that one of our files takes from another."""

    importer: str
    line: int
    imported: str
    """The file that is named: an `__init__.py` where a package is."""
    name: str
    whole: bool
    """Whether the name is the file itself, as a module."""
    top: bool
    """Whether it happens when the importer is imported, not only when a function is called."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name} of {self.imported}"


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def sources(root: Path, rooms: Iterable[str]) -> list[str]:
    found = [path for room in rooms for path in (root / room).rglob("*.py")]
    return sorted(path.relative_to(root).as_posix() for path in found)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(root: Path, paths: Iterable[str]) -> Iterator[Import]:
    """Yield every import of one of our files by another."""
    for path in paths:
        tree = parsed(root / path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    module = _file_of(root, f"{node.module}.{alias.name}")
                    imported = module or _file_of(root, node.module or "")
                    if imported is not None and imported != path:
                        top = node in tree.body
                        yield Import(path, node.lineno, imported, alias.name, bool(module), top)


def _file_of(root: Path, module: str) -> str | None:
    """Return the file of a module, if it is one of ours."""
    package, _, inner = module.partition(".")
    path = inner.replace(".", "/")
    files = [file for file in (f"{path}.py", f"{path}/__init__.py") if (root / file).is_file()]
    return files[0] if package == PACKAGE and inner and files else None


def place_of(path: str, layers: Layers) -> tuple[int, str]:
    """Return layer and place of a file: its own, or its folder's.

    Raises `LookupError` if neither stands in the layers.
    """
    for place in (path, folder_of(path)):
        for number, layer in enumerate(layers):
            if place in layer:
                return number, place
    message = f"{path}: neither the file nor its folder stands in a layer"
    raise LookupError(message)


def climbs(found: Iterable[Import], layers: Layers) -> list[Import]:
    """Return the imports that don't go down: to a place of a higher layer, or of the same one."""
    return [each for each in found if not _goes_down(each, layers)]


def _goes_down(each: Import, layers: Layers) -> bool:
    importer, imported = (place_of(path, layers) for path in (each.importer, each.imported))
    return importer == imported or importer[0] > imported[0]


def exports(root: Path, package: str) -> list[str] | None:
    """Return the `__all__` of a folder's `__init__.py`, or None if it has none."""
    path = root / package / "__init__.py"
    for node in parsed(path).body if path.is_file() else []:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
    return None


def is_inside(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def bypasses(root: Path, found: Iterable[Import], direct: Iterable[str] = ()) -> list[Import]:
    """Return the imports from a module of a folder whose package exports names.

    The folder's own files and folders may, and everybody may where the module is one of `direct`.
    """
    direct = set(direct)
    return [
        each
        for each in found
        if not each.imported.endswith("__init__.py")
        and each.imported not in direct
        and not is_inside(each.importer, folder_of(each.imported))
        and not _is_open(each, exports(root, folder_of(each.imported)))
    ]


def _is_open(each: Import, exported: Sequence[str] | None) -> bool:
    """Tell whether a module may be entered: its folder exports nothing, or the module itself."""
    return exported is None or (each.whole and each.name in exported)


def unused_exports(root: Path, found: Iterable[Import]) -> list[str]:
    """Return what packages export and no other folder imports, as `folder: name`."""
    found = list(found)
    used = {
        (folder_of(each.imported), each.name)
        for each in found
        if (each.imported.endswith("__init__.py") or each.whole)
        and folder_of(each.importer) != folder_of(each.imported)
    }
    folders = {folder_of(each.imported) for each in found} | {folder for folder, _ in used}
    return sorted(
        f"{folder}: {name}"
        for folder in folders
        for name in exports(root, folder) or []
        if (folder, name) not in used
    )


def loads(root: Path, path: str, libraries: set[str]) -> bool:
    """Tell whether importing a file imports one of the libraries, itself or by files of ours."""
    seen: set[str] = set()
    ahead = {path}
    while ahead:
        file = ahead.pop()
        seen.add(file)
        if libraries & set(_libraries(root, file)):
            return True
        ahead |= {each.imported for each in imports(root, [file]) if each.top} - seen
    return False


def _libraries(root: Path, path: str) -> Iterator[str]:
    for node in parsed(root / path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
