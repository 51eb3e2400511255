"""Which tools of an MCP server a request means: to allow them, or to have its user asked first."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class StrictModel(BaseModel):
    """Strict, about keys too: what isn't understood would let a call through."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, given: object) -> object:
        if isinstance(given, dict) and all(value is None for value in given.values()):
            known = " or ".join(f"'{name}'" for name in cls.model_fields)
            raise PydanticCustomError("custom", "Should have {known}", {"known": known})
        return given


class ToolFilter(StrictModel):
    """Some tools: by the names that the listing gives them, by whether they only read."""

    tool_names: list[str] | None = None
    read_only: bool | None = None

    def matches(self, name: str, *, read_only: bool) -> bool:
        """Tell whether a tool is meant."""
        named = self.tool_names is None or name in self.tool_names
        return named and self.read_only in (None, read_only)


ANY_TOOL = ToolFilter.model_construct()


class RequireApproval(StrictModel):
    """Of which tools a call needs the client's approval."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def requires_approval(self, name: str, *, read_only: bool, otherwise: bool) -> bool:
        """Tell whether a tool needs it; `otherwise`: what holds where nothing is said."""
        if self.always and self.always.matches(name, read_only=read_only):
            return True
        if self.never is None:
            return otherwise
        return not self.never.matches(name, read_only=read_only)


APPROVAL_SHORTHANDS = {
    "always": RequireApproval(always=ANY_TOOL),
    "never": RequireApproval(never=ANY_TOOL),
}


def _named(given: object) -> object:
    return {"tool_names": given} if isinstance(given, list) else given


def _by_word(given: object) -> object:
    if not isinstance(given, str):
        return given
    if given not in APPROVAL_SHORTHANDS:
        raise PydanticCustomError("custom", "Should be 'always', 'never' or an object of the two")
    return APPROVAL_SHORTHANDS[given]


AllowedToolsField = Annotated[ToolFilter, BeforeValidator(_named)]
RequireApprovalField = Annotated[RequireApproval, BeforeValidator(_by_word)]
