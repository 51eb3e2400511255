"""The server as replicas on Ray Serve.

    serve run falsework.server.replicas.application:build model=smollm2 replicas=2

One actor for each copy of the model: its engine starts in the actor, and the application is the
deployment's ingress. Arguments are the server's settings, by their names, and those of Scale.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from falsework.server.app import create_app, database_url
from falsework.server.cli.process import check_start, open_tools, start_model
from falsework.server.engines import Engine
from falsework.server.generation import TurnBuilder
from falsework.server.models import resolve_model
from falsework.server.observability import configure_logging
from falsework.server.replicas.replica_app import ReplicaApp
from falsework.server.replicas.scale import Scale, read_scale
from falsework.server.settings import ConfigError, Settings, load

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
"""Sessions stay at a replica; when it is full, the next two on the ring take over."""

STREAM_SECONDS = 600
"""How long a replica that is scaled down may go on with the requests that it has."""

HEALTH_SECONDS = 5
"""Between two checks of an engine; after three failures Ray replaces its replica."""

PATHS = ("chat_template", "config", "model", "tools")
"""Arguments that may name a file or folder; replicas run elsewhere than the command."""

NOT_OURS = ("host", "port")
"""Settings that mean nothing to a replica."""

StartEngine = Callable[[Settings, str], Awaitable[tuple[Engine, TurnBuilder]]]


async def start_engine(settings: Settings, instance: str) -> tuple[Engine, TurnBuilder]:
    """Start the model's engine; what is wrong with the settings is told before."""
    model = resolve_model(settings.model, print)
    await check_start(settings, model, instance)
    return await start_model(settings, model)


class Replica:
    """One copy of the model and the server around it, in an actor of Ray."""

    async def __init__(self, flags: dict[str, Any], start: StartEngine) -> None:  # type: ignore[misc]
        """Start the engine. Settings that `flags` leave open come from the node's environment."""
        self._settings = _settings(flags)
        configure_logging(self._settings.log_level)
        # Otherwise streams would be cut at the first signal, not when they are done.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
        # A name that no other replica has: the database tells by it whose work is unfinished.
        self._instance = serve.get_replica_context().replica_id.unique_id
        self._engine, self._builder = await start(self._settings, self._instance)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application, whose lifespan is the replica's."""
        settings = self._settings
        tools = open_tools(settings)
        app = create_app(settings, self._engine, self._builder, tools, self._instance)
        return ReplicaApp(app, open_to_all=bool(settings.api_key) or settings.allow_open)

    async def check_health(self) -> None:
        """Raise what is wrong with the engine; Ray then starts another replica."""
        await self._engine.check_health()

    async def __del__(self) -> None:
        """Stop the engine, after the application."""
        if hasattr(self, "_engine"):
            await self._engine.close()


def build(arguments: dict[str, Any]) -> serve.Application:
    """Return the application for `serve run` and `serve deploy`; raise ConfigError."""
    return application(arguments, start_engine)


def application(arguments: dict[str, Any], start: StartEngine) -> serve.Application:
    """Return the application with the engine that `start` gives each replica."""
    scale = read_scale({name: arguments[name] for name in arguments if name in Scale.model_fields})
    flags = {name: arguments[name] for name in arguments if name not in Scale.model_fields}
    flags |= {name: _absolute(flags[name]) for name in PATHS if name in flags}
    settings = _settings(flags)
    _check_database(settings, scale)
    deployment = serve.deployment(**_options(settings, scale))(serve.ingress()(Replica))
    return deployment.options(name="Falsework").bind(flags, start)


def _options(settings: Settings, scale: Scale) -> dict[str, Any]:
    gpus = scale.gpus_per_replica
    if gpus is None:
        gpus = settings.tensor_parallel_size if _has_gpus(settings) else 0
    options: dict[str, Any] = {
        "max_ongoing_requests": settings.max_concurrent_requests,
        "health_check_period_s": HEALTH_SECONDS,
        "graceful_shutdown_timeout_s": settings.drain_seconds + STREAM_SECONDS,
        "request_router_config": RequestRouterConfig(request_router_class=ROUTER),
        "ray_actor_options": {"num_cpus": scale.cpus_per_replica, "num_gpus": gpus},
    }
    if scale.max_replicas is None:
        return {**options, "num_replicas": scale.replicas}
    autoscaling = {
        "min_replicas": scale.replicas,
        "max_replicas": scale.max_replicas,
        "target_ongoing_requests": scale.target_ongoing_requests,
    }
    return {**options, "autoscaling_config": autoscaling}


def _has_gpus(settings: Settings) -> bool:
    if settings.device != "auto":
        return settings.device == "cuda"
    return ray.is_initialized() and "GPU" in ray.cluster_resources()


def _settings(flags: dict[str, Any]) -> Settings:
    for name in NOT_OURS:
        if name in flags:
            raise ConfigError(f"{name}: Serve's proxies listen; give it in their http_options")
    config = flags.get("config")
    rest = {name: flags[name] for name in flags if name != "config"}
    return load(rest, Path(config) if config else None)


def _absolute(name: Any) -> Any:
    path = Path(str(name)).expanduser()
    return str(path.resolve()) if path.exists() else name


def _check_database(settings: Settings, scale: Scale) -> None:
    """Refuse a database that replicas wouldn't share: responses and keys would get lost."""
    several = (scale.max_replicas or scale.replicas) > 1
    url = database_url(settings)
    in_memory = url in {"sqlite://", "sqlite:///:memory:"}
    apart = url.startswith("sqlite") and ray.is_initialized() and len(ray.nodes()) > 1
    if several and (in_memory or apart):
        raise ConfigError("database: replicas share their responses; give postgresql://…")
