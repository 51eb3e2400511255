"""What clients expect of any server: compressed bodies, forgiving paths, a list of models."""

import gzip
import json
import zlib
from typing import Any

import anthropic
import openai
import pytest
import zstandard
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, running
from support.scripted_chat import says

from falsework.server.generation.turn import TurnBuilder


def test_models_are_listed_as_clients_of_either_protocol_read_them(plain: TurnBuilder) -> None:
    with running(says("x"), plain, SETTINGS) as house:
        listed = sent(house, "GET", "/v1/models?client_version=1").json
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key="k") as sdk:
            (model,) = sdk.models.list().data
        with anthropic.Anthropic(base_url=house.url, api_key="k") as other:
            (same,) = other.models.list().data

    assert (model.id, same.id, same.display_name) == ("smollm2",) * 3
    assert listed["data"][0]["context_length"] == 4096
    assert listed["has_more"] is False


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
def test_a_body_may_come_compressed(plain: TurnBuilder, coding: str, pack: Any) -> None:
    settings = SETTINGS.model_copy(update={"max_body_bytes": 2048})
    with running(says("Hello."), plain, settings) as house:

        def reply(body: bytes, of: str = coding) -> int:
            return sent(house, "POST", CHAT, body, content_encoding=of).status

        packed = pack(json.dumps(HELLO).encode())
        assert reply(packed) == 200
        assert reply(packed[:-6]) == 400
        assert reply(b"no " + packed) == 400
        assert reply(pack(b" " * 5_000_000)) == 413
        assert reply(packed, "br") == 415


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/responses", "/v1/responses"),
        ("POST", "/v1/v1/messages", "/v1/messages"),
        ("GET", "/models", "/v1/models"),
        ("POST", "/api/chat", "Ollama"),
        ("POST", "/v1/completions", "/v1/chat/completions"),
    ],
)
def test_a_wrong_path_is_told_the_right_one(
    plain: TurnBuilder, method: str, path: str, told: str
) -> None:
    with running(says("x"), plain, SETTINGS) as house:
        reply = sent(house, method, path, HELLO if method == "POST" else None)

    assert reply.status == 404
    assert told in reply.error["message"]
