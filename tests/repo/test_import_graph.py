"""The laws of imports find what breaks them, in small repositories made for that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.import_graph import bypasses, climbs, imports, loads, sources, unused_exports

LAYERS = (("low",), ("high", "beside"), ("high/inner",))

Repository = Callable[..., Path]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Write files, by path and text."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def found(root: Path) -> list[str]:
    every = imports(root, sources(root, ["low", "high", "beside"]))
    return [str(each) for each in climbs(every, LAYERS)]


def test_imports_down_and_within_a_folder_are_lawful(repository: Repository) -> None:
    root = repository(
        low__a="",
        high__b="from falsework.low.a import X\nfrom falsework.high.c import Y",
        high__c="from falsework.low import a",
        high__inner__d="from falsework.high.b import X\nimport json\nfrom os import path",
    )

    assert found(root) == []


@pytest.mark.parametrize(
    ("importer", "text", "expected"),
    [
        ("low__a", "from falsework.high.b import X", "low/a.py:1 imports X of high/b.py"),
        ("low__a", "from falsework.high import b", "low/a.py:1 imports b of high/b.py"),
        ("beside__a", "from falsework.high.b import X", "beside/a.py:1 imports X of high/b.py"),
        (
            "high__c",
            "from falsework.high.inner.d import X",
            "high/c.py:1 imports X of high/inner/d.py",
        ),
        (
            "low__a",
            "def f():\n    from falsework.high.b import X",
            "low/a.py:2 imports X of high/b.py",
        ),
    ],
)
def test_an_import_up_or_aside_is_found(
    repository: Repository, importer: str, text: str, expected: str
) -> None:
    root = repository(low__z="", high__b="", high__inner__d="", **{importer: text})

    assert found(root) == [expected]


def test_of_two_folders_that_import_each_other_one_breaks_the_law(repository: Repository) -> None:
    root = repository(
        low__a="from falsework.high.b import X", high__b="from falsework.low.a import Y"
    )

    assert found(root) == ["low/a.py:1 imports X of high/b.py"]


def test_a_file_that_stands_apart_is_judged_by_its_own_layer(repository: Repository) -> None:
    root = repository(high__inner__d="from falsework.high.b import X", high__b="", high__c="")
    layers = (("high/b.py",), ("high/inner",), ("high",))

    every = imports(root, sources(root, ["high"]))

    assert climbs(every, layers) == []


def test_a_folder_without_a_layer_is_named(repository: Repository) -> None:
    root = repository(low__a="from falsework.new.b import X", new__b="")

    with pytest.raises(LookupError, match=r"new/b.py: neither the file nor its folder"):
        climbs(imports(root, sources(root, ["low", "new"])), LAYERS)


EXPORTING = "from falsework.low.a import X\n\n__all__ = ['X']\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from falsework.low import X", []),
        ("from falsework.low.a import X", ["high/b.py:1 imports X of low/a.py"]),
        ("from falsework.low import a", ["high/b.py:1 imports a of low/a.py"]),
    ],
)
def test_who_goes_round_a_package_that_exports_is_found(
    repository: Repository, text: str, expected: list[str]
) -> None:
    root = repository(low__init=EXPORTING, low__a="", low__c="import json", high__b=text)
    every = list(imports(root, sources(root, ["low", "high"])))

    assert list(map(str, bypasses(root, every))) == expected
    assert bypasses(root, every, ["low/a.py"]) == []


def test_a_package_may_export_a_module_as_it_is(repository: Repository) -> None:
    text = "from falsework.low import a\n\n__all__ = ['a']\n"
    root = repository(low__init=text, low__a="", high__b="from falsework.low import a")
    every = list(imports(root, sources(root, ["low", "high"])))

    assert bypasses(root, every) == []
    assert unused_exports(root, every) == []


def test_a_folder_that_exports_nothing_is_imported_by_its_modules(repository: Repository) -> None:
    root = repository(low__init="", low__a="", high__b="from falsework.low.a import X")

    assert bypasses(root, imports(root, sources(root, ["low", "high"]))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("from falsework.low import X", []), ("import json", ["low: X"])],
)
def test_an_export_that_nobody_imports_is_found(
    repository: Repository, text: str, expected: list[str]
) -> None:
    root = repository(low__init=EXPORTING, low__a="", high__b=text)

    assert unused_exports(root, imports(root, sources(root, ["low", "high"]))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from numba import njit", True),
        ("from falsework.low.b import X", True),
        ("def f():\n    import numba", False),
        ("import json", False),
    ],
)
def test_what_a_file_loads_is_found_through_others(
    repository: Repository, text: str, *, expected: bool
) -> None:
    root = repository(low__a=text, low__b="from falsework.low.c import X", low__c="import numba.x")

    assert loads(root, "low/a.py", {"numba"}) is expected
