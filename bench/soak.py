"""A soak test: many mixed requests, some cancelled; is memory flat, is a reply missing?

    python bench/soak.py [--requests 2000] [--clients 16] [--seed 0] [--model FOLDER]

A quarter of the clients close their connection at some random time. All others must get their
reply. After half of the requests memory should be where it is after the last: by then the KV cache
has been touched and the bounded caches of automata and masks are nearly full.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter

import anyio
import httpx2
import psutil
from against_vllm import commands, running

from falsework.bench.cases import LOOKUPS, ORDER, PERSON, WEATHER, Json, named_tool_choice
from falsework.server.models import resolve_model

LEAVING = 0.25
LONGEST_STAY = 3.0
WARM = 0.5
MOST_GROWTH = 0.1


def random_request(draw: random.Random) -> Json:
    """Return a request of any kind, a third of them with a new tool."""
    new = {**WEATHER, "function": {**WEATHER["function"], "name": f"at_{draw.randrange(10**9)}"}}
    kinds: list[Json] = [
        {"tools": [WEATHER], "tool_choice": named_tool_choice("get_weather")},
        {"tools": [new], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [new, WEATHER], "tool_choice": "auto"},
        {"tools": [*LOOKUPS, ORDER], "tool_choice": "required", "parallel_tool_calls": False},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON},
            }
        },
        {"n": 2},
    ]
    text = f"Request {draw.randrange(10**6)}: what is the weather in Paris?"
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": draw.choice([8, 48, 96]),
        "temperature": draw.choice([0, 1]),
        "stream": draw.choice([True, False]),
        **draw.choice(kinds),
    }


def memory(process: psutil.Process) -> float:
    """Return the unshared memory of a server and its children, in MiB."""
    family = [process, *process.children(recursive=True)]
    return sum(float(member.memory_full_info().uss) for member in family) / 2**20


def complete(text: str, request: Json) -> bool:
    """Tell whether a reply is complete and without an error."""
    if not request["stream"]:
        return "error" not in json.loads(text)
    *events, done = text.strip().split("\n\n")
    chunks = [json.loads(event[6:]) for event in events if event.startswith("data: ")]
    return done == "data: [DONE]" and not any("error" in chunk for chunk in chunks)


async def send(client: httpx2.AsyncClient, request: Json, stay: float | None) -> str:
    """Return how a request ended: answered, left, or lost with a reason."""
    with anyio.move_on_after(stay if stay is not None else 600):
        try:
            reply = await client.post("chat/completions", json=request)
        except httpx2.TransportError as error:
            return f"lost: {type(error).__name__}"
        good = reply.status_code == httpx2.codes.OK and complete(reply.text, request)
        return "answered" if good else f"lost: {reply.status_code} {reply.text[:300]}"
    return "left" if stay is not None else "lost: no reply in 600 s"


async def soak(
    url: str, requests: int, clients: int, seed: int
) -> tuple[Counter[str], list[float]]:
    """Return how the requests ended, and the memory after each twentieth of them."""
    draw = random.Random(seed)
    ends: Counter[str] = Counter()
    sizes: list[float] = []
    server = next(
        one.info["pid"]
        for one in psutil.process_iter(["pid", "cmdline"])
        if url.rsplit(":", 1)[1].split("/", maxsplit=1)[0] in (one.info["cmdline"] or [])
    )
    async with httpx2.AsyncClient(
        base_url=url + "/", timeout=600, limits=httpx2.Limits(max_connections=None)
    ) as client:
        model = (await client.get("models")).json()["data"][0]["id"]

        async def run(request: Json, stay: float | None) -> None:
            async with seats:
                ends[await send(client, {**request, "model": model}, stay)] += 1
            done = sum(ends.values())
            if done % (requests // 20) == 0:
                sizes.append(memory(psutil.Process(server)))
                print(f"{done} done, {sizes[-1]:.0f} MiB, {dict(ends)}", flush=True)

        seats = anyio.Semaphore(clients)
        async with anyio.create_task_group() as tasks:
            for _ in range(requests):
                stay = draw.uniform(0, LONGEST_STAY) if draw.random() < LEAVING else None
                tasks.start_soon(run, random_request(draw), stay)
    return ends, sizes


def main() -> None:
    """Run and judge; exits with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command = commands(str(options.model or resolve_model("smollm2", print)))["Falsework"]
    with running("Falsework", command) as endpoint:
        url = endpoint.base_url
        _wait(url)
        began = time.monotonic()
        ends, sizes = anyio.run(soak, url, options.requests, options.clients, options.seed)
    warm = sizes[int(len(sizes) * WARM) - 1]
    growth = sizes[-1] / warm - 1
    lost = sum(count for end, count in ends.items() if end.startswith("lost"))
    print(f"{options.requests} requests in {time.monotonic() - began:.0f} s: {dict(ends)}")
    print(f"memory {warm:.0f} MiB -> {sizes[-1]:.0f} MiB ({growth:+.1%}), lost {lost}")
    sys.exit(lost > 0 or growth > MOST_GROWTH)


def _wait(url: str) -> None:
    while True:
        try:
            httpx2.get(url + "/models").raise_for_status()
        except httpx2.TransportError:
            time.sleep(1)
        else:
            return


if __name__ == "__main__":
    main()
