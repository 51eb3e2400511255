"""The package `outlines` as a client: each of its output types comes back in its form."""

import json
import re
from typing import Any, Literal

import outlines
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from support.server_process import Server

pytestmark = pytest.mark.engine

SUM = """
?start: term (("+" | "-") term)*
term: NUMBER | "(" start ")"
NUMBER: /[0-9]{1,3}/
"""


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    colour: Literal["red", "green"]


@pytest.fixture
def client(server: Server) -> Any:
    return OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)


@pytest.fixture
def model(client: OpenAI) -> Any:
    return outlines.from_vllm(client, "smollm2")


def test_a_model_of_pydantic_comes_back(model: Any) -> None:
    said = model("Invent a person.", Person, max_tokens=200)

    Person.model_validate_json(said)


def test_a_choice_comes_back(model: Any) -> None:
    said = model("Is the sky blue?", Literal["yes", "no"], max_tokens=20)

    assert said in {"yes", "no"}


def test_text_of_a_regex_comes_back(model: Any) -> None:
    said = model("A date?", outlines.types.regex(r"20[0-9]{2}-[01][0-9]"), max_tokens=20)

    assert re.fullmatch(r"20[0-9]{2}-[01][0-9]", said)


def test_text_of_a_recursive_grammar_comes_back(model: Any) -> None:
    said = model("A sum?", outlines.types.CFG(SUM), max_tokens=60, temperature=1.2, seed=4)

    assert re.fullmatch(r"[0-9+()-]+", said)
    assert isinstance(eval(re.sub(r"\b0+(?=[0-9])", "", said)), int)


def test_the_openai_interface_has_a_model_of_pydantic(client: OpenAI) -> None:
    said = outlines.from_openai(client, "smollm2")("Invent a person.", Person, max_tokens=200)

    assert json.loads(said).keys() == {"name", "age", "colour"}


def test_a_grammar_that_is_none_is_refused_by_the_name_of_its_field(model: Any) -> None:
    with pytest.raises(Exception, match=r"structured_outputs\.grammar"):
        model("A sum?", outlines.types.CFG("start: nowhere"), max_tokens=20)
