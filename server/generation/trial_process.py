"""A process for work whose time nobody can tell before: it is ended when it takes too long."""

import json
import select
import subprocess
import sys
import threading
import weakref
from typing import Any

SCRIPT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from falsework.server.generation.trial_worker import worker_main; worker_main()"
)
SECONDS = 1.0
START_SECONDS = 20.0


class TrialTooLong(Exception):
    """The work took more than SECONDS, or too much memory."""


class TrialProcess:
    """Does one piece of work at a time (see `trial_worker`), each within SECONDS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, **fields: Any) -> Any:
        """Return the answer, blocking the thread; raise TrialTooLong."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None, "it was opened with pipes"
            try:
                process.stdin.write(json.dumps({"what": what, **fields}) + "\n")
                process.stdin.flush()
                return _answer(process, SECONDS)
            except (TrialTooLong, BrokenPipeError) as error:
                _end(process)
                msg = f"it takes more than {SECONDS:g} s, or too much memory"
                raise TrialTooLong(msg) from error

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
            _answer(self._process, START_SECONDS)
        return self._process


def _answer(process: "subprocess.Popen[str]", seconds: float) -> Any:
    output = process.stdout
    assert output is not None, "it was opened with pipes"
    if not select.select([output], [], [], seconds)[0]:
        raise TrialTooLong
    line = output.readline()
    if not line:
        raise TrialTooLong
    return json.loads(line)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    if process.stdin:
        process.stdin.close()
    if process.stdout:
        process.stdout.close()
    process.wait()
