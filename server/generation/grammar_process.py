"""A process that compiles a grammar of llguidance first, so that its time has a bound."""

import json
import select
import subprocess
import sys
import threading
import weakref
from typing import IO

from falsework.grammars.llguidance_grammar import UnsupportedGrammar

SCRIPT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from falsework.grammars.llguidance_worker import worker_main; worker_main()"
)
SECONDS = 1.0
"""What compiling one grammar may take; it is compiled again where it is used."""
START_SECONDS = 20.0


class GrammarProcess:
    """Tries grammars out, one at a time; blocks its thread, SECONDS at most for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def check(self, grammar: str) -> None:
        """Return when a grammar can be compiled in time; raise UnsupportedGrammar."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None, "it was opened with pipes"
            process.stdin.write(json.dumps(grammar) + "\n")
            process.stdin.flush()
            reason = _line(process, SECONDS)
            if reason is None:
                _end(process)
                reason = f"it takes more than {SECONDS:g} s to compile, or too much memory"
        if reason:
            raise UnsupportedGrammar(reason)

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-c", SCRIPT, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # a Ctrl-C is the server's
            )
            weakref.finalize(self, _end, self._process)
            if _line(self._process, START_SECONDS) is None:
                _end(self._process)
                msg = "the process that compiles grammars doesn't start"
                raise RuntimeError(msg)
        return self._process


def _line(process: "subprocess.Popen[str]", seconds: float) -> str | None:
    """Return what the process answers in time, None otherwise."""
    output: IO[str] | None = process.stdout
    assert output is not None, "it was opened with pipes"
    if not select.select([output], [], [], seconds)[0]:
        return None
    line = output.readline()
    return json.loads(line) if line else None


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with process:  # closes the pipes and waits
        pass
