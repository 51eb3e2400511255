"""Random sampling fields against a running server: does any combination end its engine?

    python bench/fuzz_sampling.py [--requests 2000] [--clients 8] [--seed 0] [--model FOLDER]

Starts a server of its own. Every request has to be answered or refused by its field (400); at the
end the engine has to be the one that was started. Exits with 1 otherwise.
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import anyio
import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.random_sampling import as_response, random_sampling
from support.server_process import Server, serving

from falsework.server.models import resolve_model

SECONDS = 600
ON_RESPONSES = 0.3


def engines(server: Server) -> set[int]:
    """Return the process ids of the server's engine."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return {child.pid for child in children if child.name().startswith("VLLM::Engine")}


async def send(client: httpx2.AsyncClient, fields: dict[str, object]) -> str:
    """Return how a request ended: its status, and for a fault the reply's text."""
    path = "responses" if "input" in fields else "chat/completions"
    try:
        reply = await client.post(path, json={"model": "smollm2", **fields})
    except httpx2.TransportError as error:
        return f"fault: {type(error).__name__}"
    if reply.status_code == httpx2.codes.OK:
        return "answered"
    if reply.status_code == httpx2.codes.BAD_REQUEST and reply.json()["error"]["param"]:
        return "refused"
    return f"fault: {reply.status_code} {reply.text[:300]} {str(fields)[:500]}"


async def fuzz(server: Server, options: argparse.Namespace) -> Counter[str]:
    """Send all requests and return how they ended."""
    draw = random.Random(options.seed)
    ends: Counter[str] = Counter()
    seats = anyio.Semaphore(options.clients)
    headers = {"authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(
        base_url=f"{server.url}/v1/", headers=headers, timeout=SECONDS
    ) as client:

        async def run(fields: dict[str, object]) -> None:
            async with seats:
                end = await send(client, fields)
            ends[end] += 1
            if end.startswith("fault"):
                print(end, flush=True)

        async with anyio.create_task_group() as tasks:
            for _ in range(options.requests):
                fields = random_sampling(draw)
                tasks.start_soon(
                    run, as_response(fields) if draw.random() < ON_RESPONSES else fields
                )
        (await client.get(f"{server.url}/ready")).raise_for_status()
    return ends


def main() -> None:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = str(options.model or resolve_model("smollm2", print))
    name = ["--served-model-name", "smollm2", "--max-model-len", "4096", "--kv-cache-gib", "0.5"]
    with serving(model, Path("/tmp/falsework-fuzz.log"), *name) as server:
        before = engines(server)
        ends = anyio.run(fuzz, server, options)
        same = engines(server) == before
    faults = sum(count for end, count in ends.items() if end.startswith("fault"))
    print(f"{ends['answered']} answered, {ends['refused']} refused, {faults} faults")
    print(f"the engine {'lives' if same else 'died'}")
    sys.exit(faults > 0 or not same)


if __name__ == "__main__":
    main()
