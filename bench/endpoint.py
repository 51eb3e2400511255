"""A server under test: any endpoint that speaks OpenAI's chat completions."""

import time
from typing import Any, Self

import anyio
import httpx2

Json = dict[str, Any]

REQUEST_TIMEOUT = 600
"""How long one request may take."""


class EndpointError(Exception):
    """A server that isn't there, or answers with an error."""


class Endpoint:
    """One server, and its one model."""

    def __init__(self, name: str, base_url: str, key: str = "none", model: str = "") -> None:
        self.name = name
        self.base_url = base_url
        self.model = model
        self.is_vllm = False
        """Known once it has started: whether it is vLLM's own server."""
        self._client = httpx2.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"},
            timeout=REQUEST_TIMEOUT,
            limits=httpx2.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def connect(self, patience: float = 0) -> None:
        """Learn the server's model, giving it `patience` seconds to listen; raise Unanswered."""
        last = time.monotonic() + patience
        while not await self._listens():
            if time.monotonic() >= last:
                raise EndpointError(f"{self.name} can't be reached")
            await anyio.sleep(1)

    async def _listens(self) -> bool:
        try:
            reply = await self._client.get("models")
        except httpx2.TransportError:
            return False
        first = self._json(reply)["data"][0]
        self.model = self.model or first["id"]
        self.is_vllm = first.get("owned_by") == "vllm"
        return True

    async def chat(self, request: Json) -> Json:
        """Return the message of a reply; raise Unanswered for any other."""
        reply = await self._client.post("chat/completions", json={**request, "model": self.model})
        message: Json = self._json(reply)["choices"][0]["message"]
        return message

    def _json(self, reply: httpx2.Response) -> Json:
        if reply.status_code != httpx2.codes.OK:
            raise EndpointError(f"{self.name} said {reply.status_code}: {reply.text[:500]}")
        said: Json = reply.json()
        return said
