"""What is wrong with a value, by a validator that isn't ours."""

from typing import Any

import jsonschema


def faults(value: Any, schema: Any) -> list[str]:
    """Return a sentence for each fault; none where the value satisfies the schema."""
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
