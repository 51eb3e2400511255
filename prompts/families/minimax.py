"""MiniMax M2: invocations with a parameter element per argument."""

from falsework.grammars.call_formats import ElementNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of MiniMaxAI/MiniMax-M2.
MINIMAX = Dialect(
    "minimax",
    ToolCallFormat(
        opening="<minimax:tool_call>\n",
        before_name='<invoke name="',
        after_name='">\n',
        after_arguments="</invoke>\n",
        separator="",
        closing="</minimax:tool_call>",
        trigger="<minimax:tool_call>",
        leading="\n",
        elements=ElementNotation('<parameter name="', '">', "</parameter>\n"),
    ),
    template_says=("<minimax:tool_call>", "<invoke name="),
    reasoning=ReasoningTags(other_gaps=("\n", "")),
)
