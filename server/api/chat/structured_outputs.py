"""What form a chat reply's text has: OpenAI's response_format, and the fields of vLLM's clients.

`structured_outputs` has one of json, json_object, regex, choice and grammar; `guided_json` and its
siblings are the same under older names.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from falsework.grammars.text_grammar import Syntax, TextGrammar
from falsework.server.api.common_schema import response_schema
from falsework.server.api.validation import WireModel
from falsework.server.errors import BadRequestError, unsupported_value
from falsework.server.generation import ResponseSchema
from falsework.server.settings import Settings

MAX_CHOICES = 10_000


class StructuredOutputs(WireModel):
    """vLLM's `structured_outputs`; the separators of JSON are always `, ` and `: `."""

    json_: dict[str, Any] | bool | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = Field(default=None, min_length=1, max_length=MAX_CHOICES)
    grammar: str | None = None
    whitespace_pattern: str | None = None
    structural_tag: str | None = None
    disable_additional_properties: bool | None = None


class GuidedFields(WireModel):
    """vLLM's older fields, and those of llama.cpp, SGLang and Ollama."""

    json_schema: dict[str, Any] | bool | str | None = None
    regex: str | None = None
    format: dict[str, Any] | str | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | bool | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = Field(default=None, min_length=1, max_length=MAX_CHOICES)
    guided_grammar: str | None = None


@dataclass(frozen=True)
class TextForm:
    """The form of a reply's text and the field that asks for it; neither of both: free text."""

    param: str
    schema: ResponseSchema = None
    grammar: TextGrammar | None = None


UNSUPPORTED = {
    "whitespace_pattern": "JSON is written with ', ' and ': ' and no other blanks",
    "structural_tag": "use tools",
    "disable_additional_properties": "say it in the schema",
}


def text_form(fields: GuidedFields, limits: Settings) -> TextForm | None:
    """Return the form that these fields ask for, None for none; raise BadRequestError."""
    asked = fields.structured_outputs or StructuredOutputs()
    for name, instead in UNSUPPORTED.items():
        if getattr(asked, name) not in (None, False):
            param = f"structured_outputs.{name}"
            message = f"'{param}' isn't supported by this server: {instead}."
            raise BadRequestError(message, param, "unsupported_parameter")
    given = {
        "structured_outputs.json": asked.json_,
        "structured_outputs.json_object": asked.json_object or None,
        "structured_outputs.regex": asked.regex,
        "structured_outputs.choice": asked.choice,
        "structured_outputs.grammar": asked.grammar,
        "guided_json": fields.guided_json,
        "guided_regex": fields.guided_regex,
        "guided_choice": fields.guided_choice,
        "guided_grammar": fields.guided_grammar,
        "json_schema": fields.json_schema,
        "regex": fields.regex or None,
        "format": fields.format or None,
    }
    asking = {param: value for param, value in given.items() if value is not None}
    if fields.structured_outputs and not any(param.startswith("struct") for param in asking):
        message = (
            "Invalid 'structured_outputs': give one of 'json', 'json_object', 'regex', 'choice' "
            "and 'grammar'."
        )
        raise BadRequestError(message, "structured_outputs", "invalid_value")
    if not asking:
        return None
    first, *others = asking
    if others:
        raise one_form_only(first, others[0])
    return FORMS[first.removeprefix("structured_outputs.").removeprefix("guided_")](
        asking[first], first, limits
    )


def one_form_only(first: str, other: str) -> BadRequestError:
    """Return the error for two fields that both ask for a form of the text."""
    message = f"'{other}' can't stand beside '{first}': a text has one form."
    return BadRequestError(message, other, "invalid_value")


def _json(value: Any, param: str, limits: Settings) -> TextForm:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            message = f"Invalid '{param}': it isn't valid JSON: {error}."
            raise BadRequestError(message, param, "invalid_value") from error
    if not isinstance(value, dict | bool):
        message = f"Invalid '{param}': a JSON Schema is an object, true or false."
        raise BadRequestError(message, param, "invalid_value")
    if isinstance(value, bool) or not value:
        # Of these any value is one; `true` alone stands for any object in a request.
        return TextForm(param, {"not": {}} if value is False else {"description": "any value"})
    return TextForm(param, response_schema(value, param, limits))


def _ollama_format(value: Any, param: str, limits: Settings) -> TextForm:
    if value == "json":
        return TextForm(param, schema=True)
    if isinstance(value, str):
        raise unsupported_value(value, ("json", "a JSON Schema"), param)
    return _json(value, param, limits)


def _json_object(_: Any, param: str, __: Settings) -> TextForm:
    return TextForm(param, schema=True)


def _grammar_of(syntax: Syntax) -> Callable[[Any, str, Settings], TextForm]:
    def form(value: str | list[str], param: str, limits: Settings) -> TextForm:
        texts = (value,) if isinstance(value, str) else tuple(value)
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if size > limits.max_schema_bytes:
            message = (
                f"Invalid '{param}': it has {size} bytes, more than the {limits.max_schema_bytes} "
                "that this server allows."
            )
            raise BadRequestError(message, param, "invalid_value")
        return TextForm(param, grammar=TextGrammar(syntax, texts, param))

    return form


FORMS: Mapping[str, Callable[[Any, str, Settings], TextForm]] = {
    "format": _ollama_format,
    "json": _json,
    "json_schema": _json,
    "json_object": _json_object,
    "regex": _grammar_of("regex"),
    "choice": _grammar_of("choice"),
    "grammar": _grammar_of("lark"),
}
