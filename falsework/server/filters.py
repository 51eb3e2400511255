"""Which tools of an MCP server a request means: to allow them, or to have its user asked first."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Filter(BaseModel):
    """Strict, about keys too: what isn't understood would let a call through."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, given: object) -> object:
        if isinstance(given, dict) and all(value is None for value in given.values()):
            known = " or ".join(f"'{name}'" for name in cls.model_fields)
            raise PydanticCustomError("custom", "Should have {known}", {"known": known})
        return given


class ToolFilter(Filter):
    """Some tools: by the names that the listing gives them, by whether they only read."""

    tool_names: list[str] | None = None
    read_only: bool | None = None

    def matches(self, name: str, *, read_only: bool) -> bool:
        """Tell whether a tool is meant."""
        named = self.tool_names is None or name in self.tool_names
        return named and self.read_only in (None, read_only)


EVERY = ToolFilter.model_construct()


class Approval(Filter):
    """Of which tools a call needs the client's approval."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def needed(self, name: str, *, read_only: bool, otherwise: bool) -> bool:
        """Tell whether a tool needs it; `otherwise`: what holds where nothing is said."""
        if self.always and self.always.matches(name, read_only=read_only):
            return True
        if self.never is None:
            return otherwise
        return not self.never.matches(name, read_only=read_only)


WORDS = {"always": Approval(always=EVERY), "never": Approval(never=EVERY)}


def _named(given: object) -> object:
    return {"tool_names": given} if isinstance(given, list) else given


def _by_word(given: object) -> object:
    if not isinstance(given, str):
        return given
    if given not in WORDS:
        raise PydanticCustomError("custom", "Should be 'always', 'never' or an object of the two")
    return WORDS[given]


AllowedTools = Annotated[ToolFilter, BeforeValidator(_named)]
RequiredApproval = Annotated[Approval, BeforeValidator(_by_word)]
