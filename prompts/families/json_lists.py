"""Families whose calls are a JSON list between marks."""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect


def _json_list(opening: str, closing: str, trigger: str, leading: str = "") -> ToolCallFormat:
    return ToolCallFormat(
        opening=opening,
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_arguments="}",
        separator=", ",
        closing=closing,
        trigger=trigger,
        leading=leading,
    )


# The model card of ibm-granite/granite-3.3-8b-instruct; its template leaves calls to the caller.
GRANITE3 = Dialect(
    "granite3",
    _json_list("<|tool_call|>[", "]", "<|tool_call|>"),
    needs=("<|tool_call|>",),
    template_says=("<|tool_call|>", "<|start_of_role|>"),
)

# The model card of microsoft/Phi-4-mini-instruct; its template has no place for `tools`.
PHI4_MINI = Dialect(
    "phi4_mini",
    _json_list("<|tool_call|>[", "]<|/tool_call|>", "<|tool_call|>"),
    needs=("<|tool_call|>", "<|/tool_call|>"),
    template_says=("<|tool|>",),
)

# The chat templates of nvidia/Llama-3_3-Nemotron-Super-49B-v1_5 and NVIDIA-Nemotron-Nano-9B-v2.
NEMOTRON_JSON = Dialect(
    "nemotron_json",
    _json_list("<TOOLCALL>[", "]</TOOLCALL>", "<TOOLCALL>", "\n"),
    template_says=("<TOOLCALL>[",),
    reasoning=ReasoningTags(other_gaps=("\n", "")),
)

# The chat template that vLLM publishes for tencent/Hunyuan-A13B-Instruct.
HUNYUAN = Dialect(
    "hunyuan",
    _json_list("<tool_calls>[", "]</tool_calls>", "<tool_calls>"),
    template_says=("<tool_calls>[", "</tool_calls>"),
    reasoning=ReasoningTags("<think>\n", "</think>", "\n", ("", "\n\n")),
)

# The chat template of Salesforce/Llama-xLAM-2-8b-fc-r: nothing but the list.
XLAM = Dialect(
    "xlam",
    ToolCallFormat(
        opening="[",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_arguments="}",
        separator=", ",
        closing="]",
        barred="[",
    ),
)
