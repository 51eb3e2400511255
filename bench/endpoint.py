"""A client of a server under test: any endpoint with OpenAI's chat completions."""

import time
from typing import Any, Self

import anyio
import httpx2

Json = dict[str, Any]

REQUEST_TIMEOUT = 600
"""Seconds."""


class EndpointError(Exception):
    """A server that can't be reached, or answers with an error."""


class Endpoint:
    """One server, which serves one model."""

    def __init__(self, name: str, base_url: str, key: str = "none", model: str = "") -> None:
        self.name = name
        self.base_url = base_url
        self.model = model
        self.is_vllm = False
        """Whether it is vLLM's own server; known once connected."""
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
        """Look up the model within `patience` seconds; raise EndpointError if that fails."""
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
        """Return the message of a reply; raise EndpointError for any other."""
        reply = await self._client.post("chat/completions", json={**request, "model": self.model})
        message: Json = self._json(reply)["choices"][0]["message"]
        return message

    def _json(self, reply: httpx2.Response) -> Json:
        if reply.status_code != httpx2.codes.OK:
            raise EndpointError(f"{self.name} answered {reply.status_code}: {reply.text[:500]}")
        body: Json = reply.json()
        return body
