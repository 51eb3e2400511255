"""What all tools of a registry share."""

from dataclasses import dataclass, field

from falsework.server.tools.redaction import Redactor
from falsework.server.tools.schema_checker import SchemaChecker


@dataclass(frozen=True)
class ToolServices:
    """The redaction of secrets, and the processes that check results."""

    redactor: Redactor = field(default_factory=Redactor)
    checker: SchemaChecker = field(default_factory=SchemaChecker)
