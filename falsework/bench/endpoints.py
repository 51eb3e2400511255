"""A server under test: any endpoint that speaks OpenAI's chat completions."""

from typing import Any, Self

import anyio
import httpx2

Json = dict[str, Any]

SECONDS = 600
"""How long one request may take, and how long a server may need to start."""


class Unanswered(Exception):
    """A server that isn't there, or answers with an error."""


class Endpoint:
    """One server, and its one model."""

    def __init__(self, name: str, base_url: str, key: str = "none", model: str = "") -> None:
        self.name = name
        self.model = model
        self._client = httpx2.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"},
            timeout=SECONDS,
            limits=httpx2.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def start(self) -> None:
        """Wait until the server lists its model; raise Unanswered when it never does."""
        with anyio.move_on_after(SECONDS):
            while True:
                try:
                    listed = await self._client.get("models")
                    self.model = self.model or listed.json()["data"][0]["id"]
                except httpx2.TransportError:
                    await anyio.sleep(1)
                else:
                    return
        raise Unanswered(f"{self.name} didn't start within {SECONDS} s")

    async def ask(self, request: Json) -> Json:
        """Return the message of a reply; raise Unanswered for any other."""
        reply = await self._client.post("chat/completions", json={**request, "model": self.model})
        if reply.status_code != httpx2.codes.OK:
            raise Unanswered(f"{self.name} said {reply.status_code}: {reply.text[:500]}")
        message: Json = reply.json()["choices"][0]["message"]
        return message
