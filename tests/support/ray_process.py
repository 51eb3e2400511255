"""A Ray cluster of its own with replicas, for tests; each line of input is applied as arguments.

python ray_process.py PORT ARGUMENTS
"""

import asyncio
import json
import os
import sys

os.environ |= {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "falsework.server.replicas.proxy:middlewares",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}

import ray
from ray import serve

from falsework.server.settings import Settings
from support.ray_app import build, replying
from support.scripted_app import Running


def serve_bare(port: int) -> None:
    """Run the server of a replica in a thread of this process."""
    settings = Settings(port=port, log_level="error", database="sqlite://")
    engine, builder = asyncio.run(replying(settings, "bare"))
    Running(engine, builder, settings).start()


def main() -> None:
    port, first = int(sys.argv[1]), json.loads(sys.argv[2])
    ray.init(
        "local",  # and no cluster that runs already
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=100 * 2**20,
    )
    serve.start(http_options={"port": port})
    serve.run(build(first), route_prefix="/")
    for bare in sys.argv[3:]:
        serve_bare(int(bare))
    print("ready", flush=True)  # noqa: T201 - for who started it
    for line in sys.stdin:
        serve.run(build(first | json.loads(line)), route_prefix="/")
        print("applied", flush=True)  # noqa: T201
    serve.shutdown()
    ray.shutdown()
    os._exit(0)  # a bare server is a thread that nobody ends


if __name__ == "__main__":
    main()
