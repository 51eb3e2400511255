"""Time to the first token with 100 new tools, over that of plain text of the same length.

    python bench/first_token.py [--base-url http://127.0.0.1:8000/v1] [--runs 9]

The same prompt twice: as tools, one of which has to be called, and as plain text without any. Both
are new to the prefix cache; what is compared is seconds per token of the prompt.
"""

import argparse
import json
import random
import statistics
import time
from typing import Any

import httpx2

Json = dict[str, Any]

TOOLS = 100
WORDS = ("city", "unit", "amount", "email", "status", "region", "limit", "title", "score", "owner")


def tool(draw: random.Random) -> Json:
    """Return a tool with two parameters and a new name."""
    kinds: list[Json] = [
        {"type": "string", "maxLength": draw.randrange(8, 33)},
        {"enum": [draw.randrange(1000) for _ in range(2)]},
    ]
    names = draw.sample(WORDS, 2)
    properties = dict(zip(names, kinds, strict=True))
    parameters = {"type": "object", "properties": properties, "required": names[:1]}
    name = f"{draw.choice(WORDS)}_{draw.choice(WORDS)}_{draw.randrange(10000)}"
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def seconds_per_token(client: httpx2.Client, request: Json) -> float:
    """Return how long one token took, for each token of the prompt."""
    began = time.perf_counter()
    reply = client.post("chat/completions", json={**request, "temperature": 0, "max_tokens": 1})
    took = time.perf_counter() - began
    assert reply.status_code == httpx2.codes.OK, reply.text
    return took / float(reply.json()["usage"]["prompt_tokens"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    draw = random.Random()
    constrained, free = [], []
    with httpx2.Client(base_url=options.base_url + "/", timeout=600) as client:
        model = client.get("models").json()["data"][0]["id"]
        for number in range(options.runs + 1):
            tools = [tool(draw) for _ in range(TOOLS)]
            user = {"role": "user", "content": "Call one."}
            asked = {"model": model, "messages": [user], "tools": tools, "tool_choice": "required"}
            text = {"role": "user", "content": json.dumps([tool(draw) for _ in range(TOOLS)])}
            took = seconds_per_token(client, asked)
            unconstrained = seconds_per_token(client, {"model": model, "messages": [text]})
            if number:  # the first warms up
                constrained.append(took)
                free.append(unconstrained)
    ratio = statistics.median(constrained) / statistics.median(free)
    print(f"first token with {TOOLS} new tools: {ratio:.3f} of the time without constraint")


if __name__ == "__main__":
    main()
