"""A server in a process of its own, whose model says what it is told: for tests that kill it.

    python scripted_process.py PORT DATABASE MODEL_FOLDER TOOLS_JSON TURN...

A turn `HANG` begins and never ends. LEASE_SECONDS in the environment is for servers whose end is to
be noticed by others sooner.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from falsework.server.app import create_app
from falsework.server.cli.process import Server, bind
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.settings import Settings
from falsework.server.storage import leases
from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.registry import open_registry
from support.scripted_app import scaffold_of


def main() -> None:
    port, database, folder, tools, *turns = sys.argv[1:]
    if seconds := os.environ.get("LEASE_SECONDS"):
        leases.LEASE_SECONDS, leases.HEARTBEAT_SECONDS = float(seconds), float(seconds) / 8
    settings = Settings(port=int(port), database=database, log_level="error")
    lines = [
        ScriptedReply([], "hang") if turn == "HANG" else ScriptedReply([turn]) for turn in turns
    ]
    app = create_app(
        settings,
        ScriptedEngine(turns=lines),
        scaffold_of(Path(folder)),
        open_registry(parse_tools_file(json.loads(tools))),
    )
    held = bind(settings)
    Server(app, settings, lambda _: print("ready", flush=True)).run([held])  # noqa: T201


if __name__ == "__main__":
    main()
