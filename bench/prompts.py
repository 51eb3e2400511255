"""What escaping costs: a long prompt laid out by us, against template and tokenizer alone.

    python -m falsework.bench.prompts MODEL [--runs N]

MODEL is a folder with a tokenizer and a chat template, or a name on the hub. Both ways take turns;
the figures are ratios of the time that a thread computes. `forged` is the same conversation with
one control token in a tool's result.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from falsework.grammars.events import Call, Tool
from falsework.prompts.conversation_layout import lay_out
from falsework.prompts.detection import detect_renderer
from falsework.prompts.messages import Message
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import load_tokenizer
from falsework.prompts.turns import RawResults

TOOL_TURNS = 50
CODE = 'def f(x):\n    return x < 3 and [y for y in x if y > 1]  # see <a href="x">docs</a>\n'
RESULT = CODE * 30
PARAMETER = {"type": "string", "description": "See [docs]."}
TOOLS = [
    Tool(
        f"tool_{number}",
        "Looks at <b>things</b>.",
        {
            "properties": {
                f"p{k}": {"type": "string", "description": "See [docs]."} for k in range(6)
            }
        },
    )
    for number in range(20)
]


def conversation(forged: str = "") -> list[Message]:
    """Return a conversation of some 50,000 tokens."""
    messages = [Message("system", "Be kind.")]
    for number in range(TOOL_TURNS):
        call = Call("tool_1", '{"p1": "some text", "p2": "x"}')
        messages += [
            Message("user", f"Look at number {number}."),
            Message("assistant", calls=(call,), call_ids=(f"call_{number}",)),
            Message("tool", RESULT, call_id=f"call_{number}"),
            Message("assistant", "It is fine."),
        ]
    return [*messages, Message("user", f"And? {forged}")]


def template_and_tokenizer(renderer: PromptRenderer, messages: list[Message]) -> int:
    """Return how many tokens the prompt has when nothing is escaped."""
    turns = list(renderer.turns.turns(messages, renderer.features, RawResults()))
    tools = [{"type": "function", "function": vars(tool)} for tool in TOOLS]
    text = renderer.template.render(lay_out(turns, renderer.features), tools)
    return len(renderer.tokenizer.encode(text, add_special_tokens=False))


def seconds(run: Callable[[], object]) -> float:
    """Return how long this thread computes for one run."""
    began = time.thread_time()
    run()
    return time.thread_time() - began


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--chat-template", default="")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    renderer = detect_renderer(load_tokenizer(options.model, options.chat_template))
    renderer.prepare()
    plain = conversation()
    forged = conversation(next(iter(renderer.control_tokens.spellings)))
    tokens = len(renderer.render(plain, TOOLS).tokens)
    ratios: dict[str, list[float]] = {"plain": [], "forged": []}
    for _ in range(options.runs):
        base = seconds(lambda: template_and_tokenizer(renderer, plain))
        ratios["plain"].append(seconds(lambda: renderer.render(plain, TOOLS)) / base)
        ratios["forged"].append(seconds(lambda: renderer.render(forged, TOOLS)) / base)
    print(f"{tokens} tokens, dialect {renderer.dialect.name}")
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.3f} of template and tokenizer alone")


if __name__ == "__main__":
    main()
