"""What a model family is made of: one definition for prompt, constraint, history and parser."""

from dataclasses import dataclass

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat


@dataclass(frozen=True)
class PastCalls:
    """How a chat template takes the calls of a message: as `tool_calls`, which it spells itself.

    `as_text`: their arguments are JSON text, otherwise objects; `empty_content` is the content
    beside them where the message has no text.
    """

    as_text: bool
    empty_content: str | None


@dataclass(frozen=True)
class Dialect:
    """How one model family speaks of tools.

    `needs` are markers that must be single tokens of the vocabulary; `template_says` are literals
    by which its chat template is known where a rendered call doesn't show the family;
    `one_call_a_message`: the family's history has no two calls in one message; `past_calls`: how
    the chat template takes past calls, None where they go to it as the text that `markup` writes;
    `call_id`: the form of the ids that its history has; `reasoning`: how models of the family think
    if they do, `think`: the same where this model does, otherwise None; `chat_template` is a file
    of `prompts/templates` that stands for the model's own where that is malformed;
    `opens_reasoning`: a reply begins inside the think block even where the template opens none;
    `answer_section`: how the family is told the schema of an answer, which stands for `{schema}`;
    empty: in our words.
    """

    name: str
    markup: ToolCallFormat
    needs: tuple[str, ...] = ()
    template_says: tuple[str, ...] = ()
    one_call_a_message: bool = False
    past_calls: PastCalls | None = None
    call_id: str = ""
    reasoning: ReasoningTags | None = None
    think: ReasoningTags | None = None
    chat_template: str = ""
    opens_reasoning: bool = False
    answer_section: str = ""

    @property
    def template_writes_calls(self) -> bool:
        """Tell whether past calls go to the chat template as tool_calls."""
        return self.past_calls is not None

    def past_call_id(self, name: str, number: int, client_id: str) -> str:
        """Return the id that history has for a call: `number` counts those of the conversation."""
        if not self.call_id:
            return client_id
        of_nine = f"call{number:05}"
        return (
            self.call_id.replace("{name}", name)
            .replace("{n}", str(number))
            .replace("{id}", of_nine)
        )

    @property
    def markers(self) -> tuple[str, ...]:
        """Return all literals, in which special tokens of the vocabulary may be spelled."""
        think = self.think or self.reasoning
        return (
            *self.markup.literals,
            *((think.opening, think.closing, think.gap) if think else ()),
        )
