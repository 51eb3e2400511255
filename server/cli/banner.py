"""What a server says once it is ready: what it is, where it is, and a call to try."""

import json
import shlex

from falsework.server.settings import Settings

EXAMPLE_REQUEST = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather in a city now.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "maxLength": 40}},
                    "required": ["city"],
                },
            },
        }
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}

_UNKNOWN_FAMILY = "its template shows no tool calls that we know; tools are explained in our words"


def startup_banner(settings: Settings, dialect: str, port: int) -> str:
    """Return it, with a line for the shell that makes the model call a tool."""
    url = f"http://{_reachable(settings.host)}:{port}/v1"
    known = f"{dialect} ({_UNKNOWN_FAMILY})" if dialect == "scaffold" else dialect
    return (
        f"\n  model    {settings.model_id}\n  dialect  {known}\n  URL      {url}\n\n"
        f"Try it:\n\n{example_curl(settings, url)}\n"
    )


def example_curl(settings: Settings, url: str) -> str:
    """Return a line for the shell that makes the model call a tool."""
    body = json.dumps({"model": settings.model_id, **EXAMPLE_REQUEST}, ensure_ascii=False)
    headers = ["content-type: application/json"]
    headers += ["authorization: Bearer YOUR_KEY"] if settings.api_key else []
    sent = " ".join(f"-H {shlex.quote(header)}" for header in headers)
    return f"curl {url}/chat/completions {sent} -d {shlex.quote(body)}"


def _reachable(host: str) -> str:
    """Return an address under which this machine reaches what listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is asked for, not bound
    address = everywhere.get(host, host)
    return f"[{address}]" if ":" in address else address
