"""Cohere's Command R7B and A: marks round thoughts, actions and responses."""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of CohereForAI/c4ai-command-r7b-12-2024 (tool_use).
COMMAND = Dialect(
    "command",
    ToolCallFormat(
        opening="<|START_ACTION|>[\n    ",
        before_name='{"tool_call_id": "{n}", "tool_name": "',
        after_name='", "parameters": ',
        after_arguments="}",
        separator=",\n    ",
        closing="\n]<|END_ACTION|>",
        trigger="<|START_ACTION|>",
        answer_opening="<|START_RESPONSE|>",
        answer_closing="<|END_RESPONSE|>",
        excluded=("<|START_ACTION|>", "<|START_RESPONSE|>", "<|START_THINKING|>"),
    ),
    needs=("<|START_ACTION|>", "<|END_ACTION|>", "<|START_RESPONSE|>"),
    template_says=("<|START_ACTION|>", "tool_call_id"),
    reasoning=ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>", ""),
)
