"""Jobs that end the worker which has them: while the job is read, while it runs, while its result is written.

It is imported by the workers, so that all of it travels by name.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

STAGES = ["read", "run", "write"]
DONE = "done"  # what such a job returns in the end
CODES = {"kill": -signal.SIGKILL, "_exit": 3, "exit": 4, "exit well": 0}


class Death(NamedTuple):
    """How a process ends, and where the pids of all that have ended so are noted, a line each.

    So many do: those that come after them live on. ``test`` is the pid of the test's own process.
    """

    how: str
    path: Path
    times: int
    test: int

    def comes(self) -> None:
        assert os.getpid() != self.test, "the job is read, or its result is written, in the wrong process"
        if len(self.pids()) >= self.times:  # two that look at the same moment both end
            return
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "_exit":
            os._exit(CODES["_exit"])
        elif self.how == "raise":
            raise ValueError("no worker can be made")
        sys.exit(CODES[self.how])

    def pids(self) -> list[str]:
        """Those that have ended so, the last one at the end."""
        return self.path.read_text().split() if self.path.exists() else []


class Deadly:
    """A job for ``handle`` that brings death at one of the stages."""

    def __init__(self, stage: str, death: Death) -> None:
        self.stage, self.death = stage, death

    def __call__(self) -> object:
        if self.stage == "run":
            self.death.comes()
        return Written(self.death) if self.stage == "write" else DONE

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_read if self.stage == "read" else Deadly), (self.stage, self.death)


def _read(stage: str, death: Death) -> Deadly:
    death.comes()
    return Deadly(stage, death)


class Written:
    """A result that brings death when it is pickled, and otherwise is read as ``DONE``."""

    def __init__(self, death: Death) -> None:
        self.death = death

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self.death.comes()
        return str, (DONE,)


def handle(job: object) -> object:
    """What a pool runs for each job: it calls those that can be called, and returns all others."""
    return job() if callable(job) else job


def initialize(death: Death) -> None:
    """An initializer."""
    death.comes()


def die_later(death: Death, fifo: Path) -> int:
    """Return at once, the own pid; the death comes when somebody opens that fifo to write."""

    def wait() -> None:
        with open(fifo):
            death.comes()

    threading.Thread(target=wait, daemon=True).start()
    return os.getpid()
