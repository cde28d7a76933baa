"""Children that run a function of ours in place of the library's: processes without a link."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipevents._processes.fork_server import fork_server
from ipevents._processes.process import ChildProcess, Launch

CEILING_SECONDS = 30.0


def launch(start_method: str) -> Launch:
    return Launch("/nonexistent/children", b"start", b"a token", os.getpid(), 1, True, start_method)


def sleep_for_ever(launch: object) -> None:
    signal.pause()


def exit_with_three(launch: object) -> None:
    os._exit(3)


def wait_end(child: ChildProcess) -> None:
    assert select.select([child.fileno()], [], [], CEILING_SECONDS)[0]


@contextmanager
def starting(start_method: str) -> Iterator[Callable[..., ChildProcess]]:
    """Yield a function that starts children; all are ended afterwards."""
    children = []

    def start(target: Callable[..., None], *passed: object) -> ChildProcess:
        child = ChildProcess(target, launch(start_method), "test", passed)
        children.append(child)
        return child

    yield start
    for child in children:
        popen = child.process._popen  # type: ignore[attr-defined]
        if child.exitcode is None and popen is not None and popen.returncode is None:
            child.send_signal(signal.SIGKILL)
            child.process.join(CEILING_SECONDS)
        child.close()
    fork_server.release(None)
