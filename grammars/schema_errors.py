"""Where in a JSON Schema something stands, and the refusal of it."""

from dataclasses import dataclass, replace


class UnsupportedSchema(ValueError):
    """A schema that can't be enforced: `pointer` is the JSON pointer to the fault."""

    def __init__(self, reason: str, pointer: str, keyword: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer or "/"
        self.keyword = keyword


class SchemaTooHard(UnsupportedSchema):
    """A valid schema that takes more than it may, or that the model's notation can't spell."""


@dataclass(frozen=True)
class SchemaPath:
    """Where in the schema the compiler stands, and the references it followed to get there."""

    pointer: str = ""
    depth: int = 0
    followed: tuple[str, ...] = ()

    def child(self, *steps: str) -> "SchemaPath":
        """Return the place that many steps further down."""
        further = "".join(f"/{escape_pointer(step)}" for step in steps)
        return replace(self, pointer=self.pointer + further, depth=self.depth + 1)

    def follow_ref(self, reference: str) -> "SchemaPath":
        """Return the place that a reference leads to."""
        return SchemaPath(reference[1:], self.depth + 1, (*self.followed, reference))

    def error(self, reason: str, keyword: str | None = None) -> UnsupportedSchema:
        """Return the refusal of a keyword here."""
        return UnsupportedSchema(reason, self.pointer, keyword)


def escape_pointer(step: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")
