"""The engine's process ends with the server's, however that one ended."""

import multiprocessing
import os
import threading
import time

POLL_SECONDS = 1.0


def exit_with_parent() -> None:
    """End this process soon after its parent has ended, even if that was killed.

    vLLM 0.32's engine process waits for its next request for ever, with the model in memory. The
    signal that Linux can send (PR_SET_PDEATHSIG) is no help: it comes when the parent's thread ends
    that started the child.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and not any(thread.name == __name__ for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent.pid,), name=__name__, daemon=True).start()


def _watch(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
