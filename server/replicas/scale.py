"""How many replicas there are, and what each takes: arguments beside the server's settings."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from falsework.server.settings import ConfigError


class Scale(BaseModel):
    """How many replicas there are, and what each of them takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: int = Field(1, ge=1, description="How many there are, or at least are.")
    max_replicas: int | None = Field(None, ge=1, description="Up to how many there may be.")
    target_ongoing_requests: float = Field(
        32, gt=0, description="Requests of a replica above which another is started."
    )
    cpus_per_replica: float = Field(1, ge=0, description="Cores that Ray counts for a replica.")
    gpus_per_replica: float | None = Field(
        None,
        ge=0,
        description="GPUs of a replica; otherwise tensor_parallel_size, none on CPUs.",
    )


def read_scale(given: Mapping[str, Any]) -> Scale:
    """Return the arguments that say how many replicas there are; raise ConfigError."""
    try:
        scale = Scale(**given)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{wrong['loc'][0]}: {wrong['msg']}") from error
    if scale.max_replicas is not None and scale.max_replicas < scale.replicas:
        raise ConfigError(f"max_replicas: {scale.max_replicas} is below replicas")
    return scale
