"""Requests with random sampling fields: ordinary values, the ends of each range, and beyond."""

import random
from typing import Any

Json = dict[str, Any]

VOCABULARY = 49152
"""Tokens of the built-in model, and of the random one behind its tokenizer."""

TINY, SMALLEST, LARGEST = 1e-300, 5e-324, 1.7e308

VALUES: dict[str, list[Any]] = {
    "temperature": [0, 1, 2, 1e-6, 0.009, TINY, SMALLEST, 2.0000001, -0.0, -1, LARGEST],
    "top_p": [1, 0.5, 0.01, TINY, SMALLEST, 0, 1.1, -1],
    "top_k": [-1, 0, 1, 5, VOCABULARY - 1, VOCABULARY, VOCABULARY + 1, 2**31 - 1, 2**31, -2, 2**70],
    "min_p": [0, 1, 0.1, TINY, SMALLEST, 0.9999999, 1.1, -0.1],
    "seed": [0, 1, -1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64],
    "n": [1, 2, 3, 16, 17, 0, -1, 2**31],
    "frequency_penalty": [0, 2, -2, SMALLEST, 2.1, -LARGEST],
    "presence_penalty": [0, 2, -2, SMALLEST, 2.1, LARGEST],
    "repetition_penalty": [1, 2, 0.5, 0.01, 0.009, TINY, SMALLEST, 0, -1, 2.1],
    "max_tokens": [1, 2, 8, 4096, 2**31, 2**63, 2**70, 0, -1],
    "top_logprobs": [0, 1, 20, 21, -1],
    "logit_bias": [
        {},
        {"0": 100, str(VOCABULARY - 1): -100},
        {str(token): 100 for token in range(300)},
        {str(token): -100 for token in range(0, VOCABULARY, 7)},
        {"2": -100},
        {"17": SMALLEST},
        {str(VOCABULARY): 1},
        {str(VOCABULARY + 1): 1.0},
        {str(2**31): 1},
        {str(2**63): 1},
        {str(2**64): -1},
        {"9" * 200: 1},
        {"-1": 1},
        {"1": 101},
        {"1": LARGEST},
    ],
    "stop": [[], ["a"], ["\x00"], [""], ["a"] * 5, ["�"], ["x" * 5000]],
}
"""Of each field values that are served, and values that have to be refused."""

FORMS: list[Json] = [
    {},
    {"response_format": {"type": "json_object"}},
    {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "parameters": {
                        "type": "object",
                        "properties": {"at": {"type": "string", "maxLength": 4}},
                        "required": ["at"],
                    },
                },
            }
        ],
        "tool_choice": "required",
    },
]


def random_sampling(draw: random.Random) -> Json:
    """Return the fields of a request; most of its values are ordinary, so that many are served."""
    fields: Json = {
        "messages": [{"role": "user", "content": f"Say something {draw.randrange(1000)}."}],
        "max_tokens": draw.choice([1, 4, 12]),
        **draw.choice(FORMS),
    }
    for name in draw.sample(sorted(VALUES), draw.randrange(1, 6)):
        values = VALUES[name]
        fields[name] = draw.choice(
            values[: (len(values) + 1) // 2] if draw.random() < 0.7 else values
        )
    if "top_logprobs" in fields:
        fields["logprobs"] = True
    return fields


def as_response(fields: Json) -> Json:
    """Return a chat's fields as those of a response, where it has them."""
    made = {name: fields[name] for name in fields if name in ON_RESPONSES}
    made["input"] = fields["messages"]
    made["max_output_tokens"] = fields["max_tokens"]
    if "tools" in fields:
        made["tools"] = [{"type": "function", **tool["function"]} for tool in fields["tools"]]
        made["tool_choice"] = fields["tool_choice"]
    if "response_format" in fields:
        made["text"] = {"format": fields["response_format"]}
    return made


ON_RESPONSES = frozenset({"temperature", "top_p", "top_logprobs", "seed", "top_k", "min_p", "stop"})
