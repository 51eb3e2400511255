"""A server in a process of its own, whose model says what it is told: for tests that kill it.

    python scripted_server.py PORT DATABASE MODEL_FOLDER TOOLS_JSON TURN...

A turn `HANG` begins and never ends.
"""

import json
import sys
from pathlib import Path

from houses import scaffold_of

from falsework.runtime.toolbox import opened
from falsework.runtime.toolsfile import parse
from falsework.server.app import make_app
from falsework.server.engines.scripted import Line, ScriptedEngine
from falsework.server.serving import Server, bind
from falsework.server.settings import Settings


def main() -> None:
    port, database, folder, tools, *turns = sys.argv[1:]
    settings = Settings(port=int(port), database=database, log_level="error")
    lines = [Line([], "hang") if turn == "HANG" else Line([turn]) for turn in turns]
    app = make_app(
        settings,
        ScriptedEngine(turns=lines),
        scaffold_of(Path(folder)),
        opened(parse(json.loads(tools))),
    )
    held = bind(settings)
    Server(app, settings, lambda _: print("ready", flush=True)).run([held])  # noqa: T201


if __name__ == "__main__":
    main()
