"""Every setting: its name, type, bounds, default and help text.

Flags of the command line win over `FALSEWORK_…` variables, those over one TOML file.
"""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from falsework.server.models import CACHE_ENV_VAR

ENV_PREFIX = "FALSEWORK_"
CONFIG_VARIABLE = "FALSEWORK_CONFIG"
RESERVED_ENV_VARS = frozenset({CONFIG_VARIABLE, CACHE_ENV_VAR})
"""Variables with the prefix that aren't settings."""


class ConfigError(ValueError):
    """A setting that is unknown or out of range; the sentence names it."""


def _split(keys: object) -> object:
    if not isinstance(keys, str):
        return keys
    return tuple(key.strip() for key in keys.split(",") if key.strip())


APIKey = Annotated[str, StringConstraints(min_length=1, pattern=r"^[!-~]+$")]


class Settings(BaseSettings):
    """The settings of one server; `load` reads them from flags, environment and file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
    )

    model: str = Field(
        "smollm2",
        min_length=1,
        description="What to serve: smollm2 (built in), a local folder, or a name on the hub.",
    )
    served_model_name: str = Field(
        "", description="The model's name in requests; otherwise MODEL, or its folder's name."
    )
    dialect: str = Field(
        "auto",
        description="How the model is told of tools and calls them; auto asks its chat template.",
    )
    chat_template: str = Field("", description="A chat template's file, for the model's own.")
    max_model_len: int | None = Field(
        None,
        ge=16,
        description="Tokens of prompt and reply together; otherwise what the model was made for.",
    )
    think_budget: int = Field(
        1024,
        ge=0,
        description="Tokens after which a think block is closed, where a request names no effort.",
    )
    unenforceable: Literal["check", "refuse"] = Field(
        "check",
        description="Keywords that decoding can't enforce: check the finished call, or refuse.",
    )
    check_attempts: int = Field(
        2, ge=0, description="How often a call or answer that fails its check is decoded again."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 takes any that is free."
    )
    api_key: Annotated[tuple[APIKey, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        repr=False,
        description="A bearer key that clients must send. Repeatable; a comma-separated list in "
        "the environment.",
    )
    allow_open: bool = Field(
        default=False,
        description="Let everyone who reaches a host beyond this machine in, without a key.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Host names that clients may call a server without keys by, besides this "
        "machine's own and IP addresses. Repeatable; a comma-separated list in the environment.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Origins (https://…, or * for all) whose web pages may use this server. "
        "Repeatable; a comma-separated list in the environment.",
    )
    orphaned_results: Literal["refuse", "keep"] = Field(
        "refuse",
        description="Results whose call isn't in the conversation, as clients leave them when they "
        "shorten it: refuse, or keep their text as the user's.",
    )
    stream_calls: Literal["whole", "as_decoded"] = Field(
        "whole",
        description="Stream a call once it is complete, or as it is decoded: then a token limit "
        "can leave half a call in the stream.",
    )
    tools: str = Field("", description="A tools file: tools that this server runs itself.")
    database: str = Field(
        "",
        repr=False,
        description="Where responses are kept: sqlite:///FILE or postgresql://…; otherwise a file "
        "in the cache folder.",
    )
    console: bool = Field(
        default=False, description="Keep the last requests and show them at /console."
    )
    drain_seconds: float = Field(
        30, ge=0, description="How long running requests may take to finish after SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much to log."
    )
    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="Bytes of a request's body.")
    max_messages: int = Field(2048, ge=1, description="Messages of a request.")
    max_tools: int = Field(128, ge=1, description="Tools of a request.")
    max_schema_bytes: int = Field(128 * 2**10, ge=256, description="Bytes of a schema as JSON.")
    max_choices: int = Field(16, ge=1, le=128, description="Choices (n) of a request.")
    max_concurrent_requests: int = Field(
        256, ge=1, description="Requests at once; more are told to wait."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers to compute with; auto is the model's own, but float32 on a CPU that "
        "has to emulate bfloat16.",
    )
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share the model.")
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory to use."
    )
    kv_cache_gib: float = Field(1.0, gt=0, description="GiB for the KV cache on a CPU.")
    engine_restarts: int = Field(
        3,
        ge=0,
        description="How often an engine that has died is started again within an hour; after "
        "that, or with 0 at once, the server exits with status 70.",
    )
    draft_tokens: int = Field(
        40,
        ge=0,
        le=64,
        description="Drafted tokens that are verified in one step; 0 decodes one by one.",
    )
    copy_drafts: bool = Field(
        True, description="Propose what a reply seems to copy from the conversation or itself."
    )
    enforce_eager: bool | None = Field(
        None, description="Run without compiling the model; otherwise only on a CPU."
    )

    @property
    def model_id(self) -> str:
        """The model's name in requests and replies."""
        if self.served_model_name:
            return self.served_model_name
        folder = Path(self.model).expanduser()
        return PurePath(folder.resolve()).name if folder.is_dir() else self.model

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the arguments: only `load` looks at the environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

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


def load(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Return the settings that flags, environment and the TOML file give together."""
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    _refuse_unknown_variables()
    in_file = _read_toml(config) if config else {}
    in_environment = EnvSettingsSource(Settings)()
    as_flags = {name: value for name, value in flags.items() if value is not None}
    spellings = {
        **{name: f"{name} in {config}" for name in in_file},
        **{name: env_var(name) for name in in_environment},
        **{name: flag_name(name) for name in as_flags},
    }
    try:
        return Settings(**(in_file | in_environment | as_flags))
    except ValidationError as error:
        raise ConfigError(_sentences(error, spellings)) from error


def flag_name(name: str) -> str:
    """Return a setting's flag on the command line."""
    return "--" + name.replace("_", "-")


def env_var(name: str) -> str:
    """Return a setting's environment variable."""
    return ENV_PREFIX + name.upper()


def _read_toml(config: Path) -> dict[str, Any]:
    # pydantic-settings' own source takes a missing file for an empty one.
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{config}: {error}") from error


def _refuse_unknown_variables() -> None:
    # pydantic-settings ignores variables that have the prefix and are no settings.
    names = {env_var(name) for name in Settings.model_fields} | RESERVED_ENV_VARS
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in names:
            raise ConfigError(f"{variable}: {_no_such_setting(variable, names)}")


def _no_such_setting(name: str, known: Iterable[str]) -> str:
    (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"no such setting. The nearest is {nearest}."


def _sentences(error: ValidationError, spellings: Mapping[str, str]) -> str:
    """Return a line for each wrong setting, which names it as it was written."""
    return "\n".join(
        _sentence(str(next(iter(detail["loc"]), "")), detail["type"], detail["msg"], spellings)
        for detail in error.errors(include_url=False, include_input=False)
    )


def _sentence(name: str, kind: str, message: str, spellings: Mapping[str, str]) -> str:
    prefix = f"{spellings[name]}: " if name in spellings else ""
    if kind == "extra_forbidden":
        return prefix + _no_such_setting(name, Settings.model_fields)
    return prefix + message.removeprefix("Value error, ")
