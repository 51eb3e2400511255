"""DeepSeek: R1 and V3, V3.1, and the DSML of V3.2 and V4."""

from falsework.grammars.call_formats import ElementNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

_CALL_MARKERS = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>")

# The chat templates of deepseek-ai/DeepSeek-R1 and DeepSeek-V3, assistant messages with tool_calls.
# R1's opens calls and results once in a conversation: from the second on it is malformed.
DEEPSEEK_R1 = Dialect(
    "deepseek_r1",
    ToolCallFormat(
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        after_name="\n```json\n",
        after_arguments="\n```<｜tool▁call▁end｜>",
        separator="\n",
        closing="<｜tool▁calls▁end｜>",
        trigger="<｜tool▁calls▁begin｜>",
        barred="{[`",
    ),
    template_says=("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "```json"),
    needs=_CALL_MARKERS,
    reasoning=ReasoningTags(),
    chat_template="deepseek_r1.jinja",
    # The model card of deepseek-ai/DeepSeek-R1: "enforcing the model to initiate its response with
    # <think>\\n at the beginning of every output".
    opens_reasoning=True,
)

# The chat template of deepseek-ai/DeepSeek-V3.1: bare JSON, no separator.
DEEPSEEK_V31 = Dialect(
    "deepseek_v31",
    ToolCallFormat(
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>",
        after_name="<｜tool▁sep｜>",
        after_arguments="<｜tool▁call▁end｜>",
        separator="",
        closing="<｜tool▁calls▁end｜>",
        trigger="<｜tool▁calls▁begin｜>",
    ),
    template_says=("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"),
    needs=_CALL_MARKERS,
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n\n",)),
)


def _dsml(block: str) -> ToolCallFormat:
    """Return the format of DSML, an element per argument, in which strings are marked."""
    return ToolCallFormat(
        opening=f"<｜DSML｜{block}>\n",
        before_name='<｜DSML｜invoke name="',
        after_name='">\n',
        after_arguments="</｜DSML｜invoke>\n",
        separator="",
        closing=f"</｜DSML｜{block}>",
        trigger=f"<｜DSML｜{block}>",
        leading="\n\n",
        elements=ElementNotation(
            '<｜DSML｜parameter name="',
            '" string="false">',
            "</｜DSML｜parameter>\n",
            '" string="true">',
        ),
    )


# The prompt encoders that come with deepseek-ai/DeepSeek-V3.2 and DeepSeek-V4.
DEEPSEEK_V32 = Dialect(
    "deepseek_v32",
    _dsml("function_calls"),
    template_says=("DSML", "function_calls"),
    needs=("｜DSML｜",),
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n\n",)),
)
DEEPSEEK_V4 = Dialect(
    "deepseek_v4",
    _dsml("tool_calls"),
    template_says=("DSML", "tool_calls>"),
    needs=("｜DSML｜",),
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n\n",)),
)
