"""What a client asks of the model, free of any protocol; every field is checked already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Tool
from falsework.grammars.text_grammar import TextGrammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.messages import Message
from falsework.server.engines import SamplingParams

NO_CALLS = ToolChoice("none")
SERVER_DEFAULTS = SamplingParams(max_tokens=0)

ResponseSchema = Mapping[str, Any] | bool | None
"""None for text, True for any JSON object, otherwise the schema of the text."""


@dataclass(frozen=True)
class ParamNames:
    """What the protocol calls the fields that only a turn can refuse; a tool carries its own."""

    messages: str = "messages"
    max_tokens: str = "max_tokens"
    schema: str = "response_format.json_schema.schema"


@dataclass(frozen=True)
class GenerationRequest:
    """A request to the model, for one turn or for several.

    `sampling.max_tokens` is 0 and `think_budget` None where the client leaves them to the server.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = NO_CALLS
    response_schema: ResponseSchema = None
    response_strict: bool = False
    """Every keyword of `response_schema` has to be enforced while decoding."""
    response_description: str = ""
    """What the client says of the schema."""
    text_grammar: TextGrammar | None = None
    """What the text may be, where it is no JSON."""
    sampling: SamplingParams = SERVER_DEFAULTS
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    effort: str | None = None
    """The reasoning effort that the client gave, by which `think_budget` was chosen."""
    template_switches: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template that the client set (chat_template_kwargs)."""
    stream: bool = False
    include_usage: bool = False
    max_parallel_calls: int = 16
    """Calls of one reply."""
    repeated_calls: bool = False
    """Whether a reply may hold two calls that are alike to the letter."""
    several_calls: bool = False
    """The client asks for parallel calls, and doesn't only allow them."""
    tool_call_bias: float | None = None
    """What is added to the log odds of a call where a reply begins; None: the server's."""
    named: bool = False
    """tool_choice named one function: its call is the whole reply, so `stop` ends it."""
    legacy_functions: bool = False
    """The client knows `function_call` and no `tool_calls`."""
    metadata: Mapping[str, str] | None = None
    limit: int = 0
    """The tokens that all turns of the model may take together; 0 is no limit."""
    params: ParamNames = ParamNames()
    owner: str = ""
    """Who asks, see `http.auth.principal`."""

    @property
    def custom_tools(self) -> frozenset[str]:
        """The names of tools that take free text."""
        return frozenset(tool.name for tool in self.tools if tool.custom)

    @property
    def can_call(self) -> bool:
        """Whether the reply may hold a call."""
        return bool(self.choice.callable_tools(self.tools))
