"""Runs the workflow against a server, once as it is and once with faults, and shows what happened.

falsework serve --tools examples/crm/tools.yaml --console
python examples/crm/run.py [--base-url http://127.0.0.1:8000]
"""

import argparse
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

Json = dict[str, Any]

SERVICES = "http://127.0.0.1:8765"
STEPS = {
    "find_customer": "Find the customer ada@example.com.",
    "score_customer": "Score the customer ada@example.com.",
    "set_stage": "Set the stage of the customer ada@example.com to qualified.",
}
FAULTS = {"score": ["503", "hang", "503"], "stage": ["lost"]}


def step(client: httpx2.Client, model: str, name: str, earlier: str | None, trace: str) -> Json:
    """Have the model call one of the server's tools, and return the response."""
    request = {
        "model": model,
        "input": STEPS[name],
        "previous_response_id": earlier,
        "tools": [{"type": "server_tool", "name": each} for each in STEPS],
        "tool_choice": {"type": "function", "name": name},
        "temperature": 0,
        "max_output_tokens": 80,
        "max_tool_calls": 1,
    }
    traced = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    reply = client.post("/v1/responses", json=request, headers=traced)
    reply.raise_for_status()
    return dict(reply.json())


def show(client: httpx2.Client, response: Json, trace: str) -> None:
    """Print a response's calls and the waterfall of its request."""
    for item in response["output"]:
        if item["type"] == "mcp_call":
            said = item["output"] or item["error"]["message"]
            print(f"  {item['name']}({item['arguments']}) -> {said}")
    state = client.get("/console/state")
    if state.status_code != httpx2.codes.OK:
        return
    ours = (one for one in state.json()["requests"] if one["trace"] == trace)
    for span in next(ours, {"spans": []})["spans"]:
        width = max(1, int(span["ms"] / 40))
        bar = " " * int(span["from_ms"] / 40) + ("x" if span["failed"] else "=") * width
        print(f"    {span['name'][:28]:28} {span['ms']:7.0f} ms |{bar}")


def chain(client: httpx2.Client, model: str, faults: Json) -> Json:
    """Run the three steps; return how often each customer was written to."""
    httpx2.post(f"{SERVICES}/faults", json=faults)
    earlier = None
    for name in STEPS:
        trace = secrets.token_hex(16)
        response = step(client, model, name, earlier, trace)
        earlier = response["id"]
        show(client, response, trace)
    return dict(httpx2.post(f"{SERVICES}/faults", json={}).json()["applied"])


def wait_for_services() -> None:
    """Return once they answer; give up where they don't."""
    for _ in range(100):
        try:
            httpx2.post(f"{SERVICES}/faults", json={})
        except httpx2.TransportError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"The services don't answer at {SERVICES}.")


def main() -> None:
    """Start the services, run the workflow twice, stop them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default="none")
    options = parser.parse_args()
    services = subprocess.Popen([sys.executable, Path(__file__).with_name("services.py")])
    try:
        headers = {"authorization": f"Bearer {options.key}"}
        with httpx2.Client(base_url=options.base_url, headers=headers, timeout=120) as client:
            model = client.get("/v1/models").json()["data"][0]["id"]
            wait_for_services()
            print("As it is:")
            chain(client, model, {})
            print("The scoring service fails twice and hangs once, the CRM's answer is lost:")
            for email, times in chain(client, model, FAULTS).items():
                print(f"Writes of {email} that were applied: {times}")
    finally:
        services.terminate()
        services.wait()


if __name__ == "__main__":
    main()
