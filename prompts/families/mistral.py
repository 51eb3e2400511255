"""Mistral: `[TOOL_CALLS]` and the call, as a JSON list until tokenizer version 3."""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

_THINK = ReasoningTags("[THINK]", "[/THINK]", "", ("\n", "\n\n"))

# The chat template of mistralai/Ministral-3-14B-Reasoning-2512; Devstral, Magistral, Large 3.
MISTRAL = Dialect(
    "mistral",
    ToolCallFormat(
        before_name="[TOOL_CALLS]",
        after_name="[ARGS]",
        after_arguments="",
        separator="",
        trigger="[TOOL_CALLS]",
    ),
    needs=("[TOOL_CALLS]", "[ARGS]"),
    template_says=("[TOOL_CALLS]", "[ARGS]"),
    reasoning=_THINK,
    call_id="{id}",
)

# The chat template of mistralai/Mistral-Small-3.2-24B-Instruct-2506: an id in every call.
MISTRAL_CALL_ID = Dialect(
    "mistral_call_id",
    ToolCallFormat(
        before_name="[TOOL_CALLS]",
        after_name="[CALL_ID]{id}[ARGS]",
        after_arguments="",
        separator="",
        trigger="[TOOL_CALLS]",
    ),
    needs=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    template_says=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    reasoning=_THINK,
    call_id="{id}",
)

# The chat templates of mistralai/Mistral-Nemo-Instruct-2407 and Mistral-7B-Instruct-v0.3: history
# has an id behind the arguments, which the model may leave out.
MISTRAL_V3 = Dialect(
    "mistral_v3",
    ToolCallFormat(
        opening="[TOOL_CALLS][",
        before_name='{"name": "',
        after_name='", "arguments": ',
        optional_id=', "id": "{id}"',
        after_arguments="}",
        separator=", ",
        closing="]",
        trigger="[TOOL_CALLS]",
    ),
    needs=("[TOOL_CALLS]",),
    template_says=("[TOOL_CALLS]",),
    call_id="{id}",
)
