"""One child process: how it is started, how its end is noticed, how it is made to end."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

_EXITCODE_SECONDS = 0.5  # how long after an exit its code may come, where it is not ours to reap

_ours = threading.local()
_patch_lock = threading.Lock()


class Launch(NamedTuple):
    """What a child is given through the pipe of its start; well under 32 KiB (FAULTS K4).

    ``repr`` shows no token: it must not come into a log or a traceback.
    """

    address: str
    slot: bytes
    token: bytes
    parent_pid: int
    depth: int
    is_worker: bool
    start_method: str
    stop_grace: float = 1.0  # seconds that a stop leaves the program to notice it

    def __repr__(self) -> str:
        return f"<Launch depth {self.depth} of {self.parent_pid}>"


class ChildProcess:
    """A started ``multiprocessing.Process`` with a descriptor that tells its end (or a sentinel)."""

    def __init__(self, launch: Launch, name: str) -> None:
        """Start it. Blocks for some milliseconds. Raises OSError where the system refuses a process."""
        from .. import _bootstrap

        context: Any = multiprocessing.get_context(launch.start_method)
        self.process: BaseProcess = context.Process(target=_bootstrap.run, args=(launch,), name=name)
        self.process.daemon = False  # a daemon may have no children (FAULTS K12)
        with _quiet_start():
            self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid
        self._pidfd = open_pidfd(self.pid)
        self.exitcode: int | None = None

    def fileno(self) -> int:
        """The descriptor that becomes readable when the process has ended."""
        return self.process.sentinel if self._pidfd is None else self._pidfd

    def reap(self) -> int | None:
        """After its end: its exit code, negative for a signal, None where somebody else took it."""
        code = None
        if self._pidfd is not None:
            with contextlib.suppress(ChildProcessError):
                result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
                if result is not None:
                    killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
                    code = -result.si_status if killed else result.si_status
        seen = self.process.exitcode  # reaps
        if seen is None and code is None:
            wait([self.process.sentinel], _EXITCODE_SECONDS)
            seen = self.process.exitcode
        self.exitcode = code if seen is None else seen
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Signal it, as long as it is not reaped; a process that has ended is no error."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.process.exitcode is None:
                os.kill(self.pid, number)

    def close(self) -> None:
        """Give the descriptors back; after the end only."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        with contextlib.suppress(ValueError):  # reaped by somebody else: multiprocessing thinks that it runs
            self.process.close()

    def abandon(self) -> None:
        """In a forked child: only our copy of the descriptor goes."""
        # multiprocessing would join it at the end of this process, and fail: it is no child of ours here.
        process._children.discard(self.process)  # type: ignore[attr-defined]  # not in typeshed
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def open_pidfd(pid: int) -> int | None:
    """A descriptor for a process, or None where the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            return None
        raise


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Around a start: SIGINT waits, and the child does not import our main module."""
    _patch_preparation()
    from multiprocessing import resource_tracker  # late: a process without children needs neither

    resource_tracker.ensure_running()  # it would inherit the blocked SIGINT
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _ours.starting = True
    try:
        yield
    finally:
        _ours.starting = False
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _patch_preparation() -> None:
    """Wrap what multiprocessing tells a new process, once; only our own starts get less.

    Without the name of the main module the child does not import it, so a script needs no
    ``if __name__ == "__main__"`` guard.
    """
    with _patch_lock:
        from multiprocessing import spawn

        original = spawn.get_preparation_data
        if getattr(original, "_is_ipevents", False):
            return

        def get_preparation_data(name: str) -> dict[str, Any]:
            found = original(name)
            if getattr(_ours, "starting", False):
                found.pop("init_main_from_name", None)
                found.pop("init_main_from_path", None)
            return found

        get_preparation_data._is_ipevents = True  # type: ignore[attr-defined]  # a mark for the test above
        spawn.get_preparation_data = get_preparation_data
