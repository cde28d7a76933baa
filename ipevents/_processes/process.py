"""One child process: how it is started, how its end is noticed, how it is made to end.

Processes are started by ``multiprocessing`` with a few changes (preparation.py), or forked by the fork server
of this process (forked.py). Ends are noticed by a pidfd where the system has one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing import process
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from .._exceptions import WorkerRefused
from .._platform import streams
from .._platform.clock import sleep
from .._platform.shared_page import SharedPage
from .._platform.threads import start_thread
from .pidfds import Gone, Held, open_pidfd
from .preparation import UNKNOWN_EXITCODE, check_interpreter, own_start, quiet_start

_EXITCODE_SECONDS = 2.0  # how long after an exit its code may come, where a fork server reaps the child
_EXITCODE_TRIES = 20
_EXITCODE_STEP_SECONDS = 0.001


class Launch(NamedTuple):
    """What a child gets through the pipe of its start; well under 32 KiB (README, Wire and handshake).

    ``repr`` shows no token: a token must not get into a log or a traceback.
    """

    address: str
    key_id: bytes  # of this start: what names it in the handshake
    token: bytes  # the secret that it proves there
    parent_pid: int
    depth: int
    is_worker: bool
    start_method: str
    stop_grace: float = 1.0  # seconds that a stop leaves the program to notice it
    channel: socket.socket | None = None  # the child's end of the control channel
    page: SharedPage | None = None  # what the child writes for its parent to read after its end
    is_quiet: bool = False  # no listener is told of it, not even its own

    def __repr__(self) -> str:
        return f"<Launch depth {self.depth} of {self.parent_pid}>"


def boot_server() -> None:
    """Have a fork server started for a ``ChildProcess`` that follows. Returns at once, while it boots.

    Raises as ``ChildProcess`` does. Where there can be no server, that start will find it, and do without.
    """
    from .fork_server import Unavailable, fork_server  # late: a process without children does without

    _check_place()
    streams.occupy()
    with own_start(), contextlib.suppress(Unavailable):
        fork_server.boot()


class ChildProcess:
    """A started ``multiprocessing.Process``, with a descriptor that becomes readable when it has ended."""

    def __init__(
        self, main: Callable[..., None], launch: Launch, name: str, passed: tuple[object, ...] = ()
    ) -> None:
        """Start a process that calls ``main(launch, *passed)``. Blocks for some milliseconds.

        ``main`` is pickled by its name. Raises WorkerRefused where no process can be started, OSError where
        the system refuses it; in both cases there is no process.
        """
        _check_place()
        streams.occupy()  # the user may have closed them only now; multiprocessing opens pipes
        self._pidfd: Held | None = None
        self._ending: Ending | None = None
        self._is_forked = launch.start_method == "forkserver"  # by the fork server, which reaps it
        options = {"target": main, "args": (launch, *passed), "name": name, "daemon": False}
        self.process = _made(self._is_forked, options)
        self._is_over = False
        self.exitcode: int | None = None
        try:
            with quiet_start():
                self._start(options)
            assert self.process.pid is not None
            self.pid: int = self.process.pid
            if self._is_forked:
                self._pidfd = self._popen().pidfd
            else:
                self._pidfd = _pidfd_of_child(self.pid)
                if self._pidfd is None:
                    self._ending = Ending.of(self.pid)
        except BaseException:  # no descriptor left, or Ctrl-C: the exception means that there is no child
            self.discard()
            raise

    def _start(self, options: dict[str, Any]) -> None:
        """Start the process; by spawn where it cannot be had by the fork server."""
        if self._is_forked:
            from .fork_server import Unavailable

            try:
                self.process.start()
                return
            except Unavailable:
                self._is_forked = False
                self.process = _made(False, options)
        check_interpreter()
        self.process.start()

    def discard(self) -> None:
        """Kill the process if it runs, wait for its end, and close all descriptors."""
        if self.process.pid is not None:
            self.process.kill()
            if self._is_forked:
                self._popen().wait_for_code(_EXITCODE_SECONDS)
            self.process.join()
            self.process.close()
        self._close_descriptors()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the process has ended."""
        if self._pidfd is not None:
            return self._pidfd.number
        return self.process.sentinel if self._ending is None else self._ending.fileno()

    def reap(self) -> int | None:
        """Reap the process after its end. Returns its exit code, negative for a signal.

        Returns None where other code in this process has reaped it, and so taken the code.
        """
        code = None if self._ending is None else self._ending.code
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # reaped by somebody else; or the system knows no P_PIDFD
                code = code_of(os.waitid(os.P_PIDFD, self._pidfd.number, os.WEXITED | os.WNOWAIT))
        try:
            seen = self._seen(code is None)
        except ValueError:  # closed in this very moment
            seen = None
        self._is_over = True
        self.exitcode = code if seen is None else seen
        return self.exitcode

    def _seen(self, waits: bool) -> int | None:
        """Return the exit code that multiprocessing gets when it reaps the process; None if it gets none.

        If ``waits``, it is asked several times. Not by ``multiprocessing.connection.wait``, whose timeout
        never ends while something (a test library, say) has frozen the clock.
        """
        popen = self._popen()
        if popen is None:  # other code in this process has closed the Process
            return None
        if self._is_forked:  # the fork server sends the code a moment later
            return popen.wait_for_code(_EXITCODE_SECONDS)  # type: ignore[no-any-return]
        seen = self.process.exitcode
        tries = _EXITCODE_TRIES if waits else 0
        while seen is None and tries:
            # Its sentinel came before its end, or another thread has reaped it and will store the code.
            tries -= 1
            sleep(_EXITCODE_STEP_SECONDS)
            seen = self.process.exitcode
        return seen

    def send_signal(self, number: int) -> None:
        """Send a signal, as long as the process is not reaped.

        A process that has ended already is no error.
        """
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                try:
                    signal.pidfd_send_signal(self._pidfd.number, number)
                    return
                except PermissionError:  # some sandboxes allow the one and not the other
                    if not self._is_over:
                        os.kill(self.pid, number)
            elif not self._is_over and (self._ending is None or not self._ending.has_come()):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Close the descriptors after the end of the process.

        The ``Process`` object stays usable for code that holds it, with an exit code to ask for.
        """
        self._close_descriptors()
        popen = self._popen()
        if popen is not None and popen.returncode is None:
            # Reaped by other code. multiprocessing would take it for alive, and signal a process that has
            # got the same pid since.
            popen.returncode = UNKNOWN_EXITCODE if self.exitcode is None else self.exitcode
        if popen is not None and self._is_forked:
            popen.close()
        process._children.discard(self.process)  # type: ignore[attr-defined]  # not in typeshed

    def abandon(self) -> None:
        """Close our copies of the descriptors in a forked child, and do nothing else."""
        # multiprocessing would join it when this process ends, and fail: it is a child of our parent.
        process._children.discard(self.process)  # type: ignore[attr-defined]  # not in typeshed
        if self._ending is not None:
            self._ending.abandon()
        popen = self._popen()
        if popen is not None and self._is_forked:
            popen.close()
        self._close_descriptors()

    def _popen(self) -> Any:
        """Return what multiprocessing handles the started process with."""
        return self.process._popen  # type: ignore[attr-defined]  # not in typeshed

    def _close_descriptors(self) -> None:
        if self._pidfd is not None:
            self._pidfd.close()
            self._pidfd = None
        if self._ending is not None:
            self._ending.close()


def _made(forked: bool, options: dict[str, Any]) -> BaseProcess:
    """Return a process that is not started yet. No daemon, because that may have no children."""
    if forked:
        return ForkedProcess(**options)
    return multiprocessing.get_context("spawn").Process(**options)


class ForkedProcess(BaseProcess):
    """A process started by the fork server; multiprocessing in it starts its own ones by spawn.

    It is here because each child gets it, as a pickle, and does without what starts it.
    """

    _start_method = "spawn"

    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: N802  # the name that multiprocessing calls
        from .forked import Popen  # late, see above

        return Popen(process)


class Ending:
    """The end of a child, noticed by a thread that waits for it. For systems without pidfd.

    The sentinel of multiprocessing would not do: whatever the child forks shares it. The thread blocks until
    the process ends, and does not reap it; the owner of the process kills it at last. ``code`` is the exit
    code, once that is known.
    """

    def __init__(self, pid: int) -> None:
        self.code: int | None = None
        self._pid = pid
        self._reader, self._writer = os.pipe()

    @classmethod
    def of(cls, pid: int) -> Ending | None:
        """Start to wait for the end of this process.

        Returns None where no thread can be started, or the system cannot wait so (macOS before Python 3.13).
        """
        if not hasattr(os, "waitid"):
            return None
        ending = cls(pid)
        try:
            start_thread(f"ending-{pid}", ending._wait)
        except RuntimeError:
            ending.abandon()
            ending.close()
            return None
        return ending

    def _wait(self) -> None:
        """Wait for the end of the process, keep its exit code, and make the pipe readable.

        The body of the thread.
        """
        with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
            self.code = code_of(os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT))
        writer, self._writer = self._writer, -1
        with contextlib.suppress(OSError):
            os.write(writer, b"\0")  # not by closing alone: a forked process has copies
        os.close(writer)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable at the end."""
        return self._reader

    def has_come(self) -> bool:
        """Return whether the process has ended."""
        return self._writer < 0

    def close(self) -> None:
        """Close the descriptor, after the end."""
        os.close(self._reader)

    def abandon(self) -> None:
        """Close what the thread would have closed, where that thread does not exist."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


def code_of(result: Any) -> int | None:
    """Return the result of ``os.waitid`` as an exit code of multiprocessing: negative for a signal."""
    if result is None:
        return None
    killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
    return int(-result.si_status if killed else result.si_status)


def _pidfd_of_child(pid: int) -> Held | None:
    """Return a pidfd for a child that was just started; None where there is none, or it is reaped already."""
    try:
        return open_pidfd(pid)
    except Gone:  # reaped by somebody else, or SIGCHLD is ignored
        return None


def _check_place() -> None:
    """Refuse to start a child where multiprocessing would fail in an unclear way. Raises WorkerRefused."""
    if multiprocessing.current_process().daemon:
        raise WorkerRefused(
            "this process is a daemonic one of multiprocessing (a worker of a Pool, or daemon=True), which "
            "may start no processes: start them from another one, or make this one with daemon=False"
        )
    try:
        os.getcwd()
    except OSError as exc:
        raise WorkerRefused(
            f"a child starts in the working directory of this process, and that is gone: {exc.strerror}; "
            "os.chdir() to one that is there"
        ) from exc
