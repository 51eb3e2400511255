"""The JSON Schema Test Suite, from the sdist of the PyPI package `jsonschema`, fetched once."""

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.published_templates import cache_folder, run, workspace

VERSION = "4.26.0"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}


class Case(NamedTuple):
    """A schema of the suite, with (description, instance, whether it is valid)."""

    name: str
    schema: Any
    tests: list[tuple[str, Any, bool]]


def cases(draft: str) -> Iterator[Case]:
    """Yield the cases of a draft, the optional ones and the formats too."""
    folder = _suite() / draft
    for file in sorted(folder.rglob("*.json")):
        for case in json.loads(file.read_text("utf-8")):
            schema = case["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": DRAFTS[draft], **schema}
            tests = [(one["description"], one["data"], one["valid"]) for one in case["tests"]]
            name = f"{file.relative_to(folder).with_suffix('')}: {case['description']}"
            yield Case(name, schema, tests)


def _suite() -> Path:
    """Return the folder of the suite's tests; raise Unreachable."""
    folder = cache_folder() / f"json-schema-test-suite-{VERSION}"
    if folder.exists():
        return folder
    requirement = f"jsonschema=={VERSION}"
    with workspace() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        run([*command, "--no-binary", "jsonschema", requirement], temporary, requirement)
        with tarfile.open(temporary / f"jsonschema-{VERSION}.tar.gz") as archive:
            archive.extractall(temporary, filter="data")
        (temporary / f"jsonschema-{VERSION}" / "json" / "tests").rename(folder)
    return folder
