"""Every setting once: its name, its kind, its bounds, its default and its sentence of help.

Flags of the command line win over `FALSEWORK_…` variables, those over the one TOML file.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from falsework.server.models import CACHE_ENV_VAR

ENV_PREFIX = "FALSEWORK_"
CONFIG_VARIABLE = "FALSEWORK_CONFIG"
RESERVED_ENV_VARS = frozenset({CONFIG_VARIABLE, CACHE_ENV_VAR})
"""Variables of ours that aren't settings."""


class ConfigError(ValueError):
    """A setting that is unknown or out of range; the sentence names it."""


def _split(keys: object) -> object:
    if not isinstance(keys, str):
        return keys
    return tuple(key.strip() for key in keys.split(",") if key.strip())


def _panel(name: str) -> dict[str, Any]:
    return {"panel": name}


MODEL, ENDPOINT, LIMITS, ENGINE = map(_panel, ("Model", "Endpoint", "Limits", "Engine"))

APIKey = Annotated[str, StringConstraints(min_length=1, pattern=r"^[!-~]+$")]


class Settings(BaseModel):
    """How one server runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field(
        "smollm2",
        min_length=1,
        description="What to serve: smollm2 (built in), a local folder, or a name on the hub.",
        json_schema_extra=MODEL,
    )
    served_model_name: str = Field(
        "",
        description="The model's name in requests; otherwise MODEL, or its folder's name.",
        json_schema_extra=MODEL,
    )
    dialect: str = Field(
        "auto",
        description="How the model is told of tools and calls them; auto asks its chat template.",
        json_schema_extra=MODEL,
    )
    chat_template: str = Field(
        "", description="A chat template's file, for the model's own.", json_schema_extra=MODEL
    )
    max_model_len: int | None = Field(
        None,
        ge=16,
        description="Tokens of prompt and reply together; otherwise what the model was made for.",
        json_schema_extra=MODEL,
    )
    think_budget: int = Field(
        1024,
        ge=0,
        description="Tokens after which a think block is closed, where a request names no effort.",
        json_schema_extra=MODEL,
    )
    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on.", json_schema_extra=ENDPOINT
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes any that is free.",
        json_schema_extra=ENDPOINT,
    )
    api_key: Annotated[tuple[APIKey, ...], BeforeValidator(_split)] = Field(
        (),
        repr=False,
        description="A bearer key that clients must send. Repeatable; a comma-separated list in "
        "the environment.",
        json_schema_extra=ENDPOINT,
    )
    allow_open: bool = Field(
        default=False,
        description="Let everyone who reaches a host beyond this machine in, without a key.",
        json_schema_extra=ENDPOINT,
    )
    stream_calls: Literal["whole", "as_decoded"] = Field(
        "whole",
        description="Stream a call once it is complete, or as it is decoded: then a token limit "
        "can leave half a call in the stream.",
        json_schema_extra=ENDPOINT,
    )
    tools: str = Field(
        "",
        description="A tools file: tools that this server runs itself.",
        json_schema_extra=ENDPOINT,
    )
    database: str = Field(
        "",
        repr=False,
        description="Where responses are kept: sqlite:///FILE or postgresql://…; otherwise a file "
        "in the cache folder.",
        json_schema_extra=ENDPOINT,
    )
    console: bool = Field(
        default=False,
        description="Keep the last requests and show them at /console.",
        json_schema_extra=ENDPOINT,
    )
    drain_seconds: float = Field(
        30,
        ge=0,
        description="How long running requests may take to finish after SIGTERM.",
        json_schema_extra=ENDPOINT,
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much to log.", json_schema_extra=ENDPOINT
    )
    max_body_bytes: int = Field(
        4 * 2**20, ge=1024, description="Bytes of a request's body.", json_schema_extra=LIMITS
    )
    max_messages: int = Field(
        2048, ge=1, description="Messages of a request.", json_schema_extra=LIMITS
    )
    max_tools: int = Field(128, ge=1, description="Tools of a request.", json_schema_extra=LIMITS)
    max_schema_bytes: int = Field(
        128 * 2**10, ge=256, description="Bytes of a schema as JSON.", json_schema_extra=LIMITS
    )
    max_choices: int = Field(
        16, ge=1, le=128, description="Choices (n) of a request.", json_schema_extra=LIMITS
    )
    max_concurrent_requests: int = Field(
        256, ge=1, description="Requests at once; more are told to wait.", json_schema_extra=LIMITS
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs.", json_schema_extra=ENGINE
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers to compute with; auto is the model's own, but float32 on a CPU that "
        "has to emulate bfloat16.",
        json_schema_extra=ENGINE,
    )
    tensor_parallel_size: int = Field(
        1, ge=1, description="GPUs that share the model.", json_schema_extra=ENGINE
    )
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory to use.", json_schema_extra=ENGINE
    )
    kv_cache_gib: float = Field(
        1.0, gt=0, description="GiB for the KV cache on a CPU.", json_schema_extra=ENGINE
    )
    draft_tokens: int = Field(
        40,
        ge=0,
        le=64,
        description="Drafted tokens that are verified in one step; 0 decodes one by one.",
        json_schema_extra=ENGINE,
    )
    copy_drafts: bool = Field(
        True,
        description="Propose what a reply seems to copy from the conversation or itself.",
        json_schema_extra=ENGINE,
    )
    enforce_eager: bool | None = Field(
        None,
        description="Run without compiling the model; otherwise only on a CPU.",
        json_schema_extra=ENGINE,
    )

    @property
    def model_id(self) -> str:
        """The model's name in requests and replies."""
        if self.served_model_name:
            return self.served_model_name
        folder = Path(self.model).expanduser()
        return PurePath(folder.resolve()).name if folder.is_dir() else self.model

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if not (self.api_key or self.allow_open or _is_loopback(self.host)):
            message = (
                f"host: {self.host} can be reached from other machines; "
                "set api_key, or allow_open to let everyone in"
            )
            raise ValueError(message)
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class GivenValue:
    """A setting's value and how its name was written where it was given."""

    spelling: str
    value: Any


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None
) -> Settings:
    """Return the settings that flags, environment and file give together."""
    config = config or _configured(environment)
    given = {
        **(_from_file(config) if config else {}),
        **_from_environment(environment),
        **{
            name: GivenValue(flag_name(name), value)
            for name, value in flags.items()
            if value is not None
        },
    }
    try:
        return Settings(**{name: each.value for name, each in given.items()})
    except ValidationError as fault:
        raise ConfigError(_sentences(fault, given)) from fault


def flag_name(name: str) -> str:
    """Return a setting's flag on the command line."""
    return "--" + name.replace("_", "-")


def env_var(name: str) -> str:
    """Return a setting's environment variable."""
    return ENV_PREFIX + name.upper()


def _configured(environment: Mapping[str, str]) -> Path | None:
    named = environment.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _from_file(config: Path) -> dict[str, GivenValue]:
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise ConfigError(f"{config}: {fault}") from fault
    for name in written:
        if name not in Settings.model_fields:
            raise ConfigError(_unknown(f"{name} in {config}", name, Settings.model_fields))
    return {name: GivenValue(f"{name} in {config}", value) for name, value in written.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, GivenValue]:
    names = {env_var(name): name for name in Settings.model_fields}
    for written in environment:
        if written.startswith(ENV_PREFIX) and written not in RESERVED_ENV_VARS.union(names):
            raise ConfigError(_unknown(written, written, names))
    return {
        names[written]: GivenValue(written, value)
        for written, value in environment.items()
        if written in names and value
    }


def _unknown(spelling: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{spelling}: no such setting. The nearest is {''.join(near)}."


def _sentences(fault: ValidationError, given: Mapping[str, GivenValue]) -> str:
    return "\n".join(
        f"{_spelling(error['loc'], given)}{error['msg'].removeprefix('Value error, ')}"
        for error in fault.errors(include_url=False, include_input=False)
    )


def _spelling(path: tuple[int | str, ...], given: Mapping[str, GivenValue]) -> str:
    name = str(path[0]) if path else ""
    return f"{given[name].spelling}: " if name in given else ""
