"""One child process: how it is started, how its end is noticed, how it is made to end.

Processes are started by ``multiprocessing``, changed in two ways: SIGINT is blocked until the child is ready
for it, and the child does not import the main module. Ends are noticed by a pidfd where the system has one.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import process
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from .._exceptions import WorkerRefused
from .._platform import streams
from .._platform.clock import sleep
from .._platform.threads import start_thread

HUNG_EXITCODE = 1  # of a child whose main thread could not be brought to its end
_EXITCODE_SECONDS = 0.5  # how long after an exit its code may come, where a fork server reaps the child
_EXITCODE_TRIES = 20
_EXITCODE_STEP_SECONDS = 0.001
_UNKNOWN_EXITCODE = 255  # multiprocessing uses the same where it does not know the code

_ours = threading.local()
_patch_lock = threading.Lock()


class Launch(NamedTuple):
    """What a child gets through the pipe of its start; well under 32 KiB (README, Wire).

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

    def __repr__(self) -> str:
        return f"<Launch depth {self.depth} of {self.parent_pid}>"


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
        context: Any = multiprocessing.get_context(launch.start_method)
        self.process: BaseProcess = context.Process(target=main, args=(launch, *passed), name=name)
        self.process.daemon = False  # a daemon may have no children
        self._is_ours = launch.start_method == "spawn"  # whether we reap it, and not a fork server
        self._pidfd: int | None = None
        self._ending: Ending | None = None
        self._is_over = False
        self.exitcode: int | None = None
        try:
            with _quiet_start(launch.start_method):
                self.process.start()
            assert self.process.pid is not None
            self.pid: int = self.process.pid
            self._pidfd = _pidfd_of_child(self.pid)
            if self._pidfd is None and self._is_ours:
                self._ending = Ending.of(self.pid)
        except BaseException:  # no descriptor left, or Ctrl-C: the exception means that there is no child
            self.discard()
            raise

    def discard(self) -> None:
        """Kill the process if it runs, wait for its end, and close all descriptors."""
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
        self._close_descriptors()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the process has ended."""
        if self._pidfd is not None:
            return self._pidfd
        return self.process.sentinel if self._ending is None else self._ending.fileno()

    def reap(self) -> int | None:
        """Reap the process after its end. Returns its exit code, negative for a signal.

        Returns None where other code in this process has reaped it, and so taken the code.
        """
        code = None if self._ending is None else self._ending.code
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # reaped by somebody else; or the system knows no P_PIDFD
                code = code_of(os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT))
        try:
            seen = self._seen(code is None)
        except ValueError:  # other code in this process has closed the Process
            seen = None
        self._is_over = True
        self.exitcode = code if seen is None else seen
        return self.exitcode

    def _seen(self, waits: bool) -> int | None:
        """Return the exit code that multiprocessing gets when it reaps the process; None if it gets none.

        If ``waits``, it is asked several times. Not by ``multiprocessing.connection.wait``, whose timeout
        never ends while something (a test library, say) has frozen the clock.
        """
        if not self._is_ours:  # the fork server sends the code a moment later
            poll = select.poll()
            poll.register(self.process.sentinel, select.POLLIN)
            return self.process.exitcode if poll.poll(_EXITCODE_SECONDS * 1000) else None
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
                    signal.pidfd_send_signal(self._pidfd, number)
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
        popen: Any = self.process._popen  # type: ignore[attr-defined]  # not in typeshed
        if popen is not None and popen.returncode is None:
            # Reaped by other code. multiprocessing would take it for alive, and signal a process that has
            # got the same pid since.
            popen.returncode = _UNKNOWN_EXITCODE if self.exitcode is None else self.exitcode
        process._children.discard(self.process)  # type: ignore[attr-defined]  # not in typeshed

    def abandon(self) -> None:
        """Close our copies of the descriptors in a forked child, and do nothing else."""
        # multiprocessing would join it when this process ends, and fail: it is a child of our parent.
        process._children.discard(self.process)  # type: ignore[attr-defined]  # not in typeshed
        if self._ending is not None:
            self._ending.abandon()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._ending is not None:
            self._ending.close()


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


def _pidfd_of_child(pid: int) -> int | None:
    """Return a pidfd for a child that was just started; None where there is none, or it is reaped already."""
    try:
        return open_pidfd(pid)
    except ProcessLookupError:  # it has ended, and was reaped: by somebody else, or SIGCHLD is ignored
        return None


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor for a process, or None where the system has none. Raises ProcessLookupError."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            return None
        raise


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


def _check_interpreter() -> None:
    """Refuse to start a child if there is no interpreter for it: multiprocessing would not notice.

    Raises WorkerRefused.
    """
    from multiprocessing import spawn

    found = spawn.get_executable()
    path = os.fsdecode(found) if found else ""
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise WorkerRefused(
            f"there is no Python interpreter to run a child: sys.executable is {path!r} for multiprocessing; "
            "multiprocessing.set_executable(path) names another one"
        )


@contextlib.contextmanager
def _quiet_start(start_method: str) -> Iterator[None]:
    """Block SIGINT during a start, and keep the child from importing our main module."""
    _patch_preparation()
    from multiprocessing import resource_tracker  # late: a process without children needs neither

    _check_interpreter()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    _ours.starting = True
    try:
        # Both would inherit a blocked SIGINT, and the second hand it on to processes of the application. The
        # first one leaves SIGINT and SIGTERM unblocked here, whatever they were.
        resource_tracker.ensure_running()
        if start_method == "forkserver":
            from multiprocessing import forkserver

            forkserver.ensure_running()  # which would import our main module, from Python 3.14 on
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        _ours.starting = False  # first: with the next line a handler may run, and raise
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _Blocked:
    """An object that blocks SIGINT in the process that unpickles it.

    Each child unpickles one at its very beginning; its main function unblocks SIGINT when it can handle it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.pthread_sigmask, (int(signal.SIG_BLOCK), [int(signal.SIGINT)])


def _patch_preparation() -> None:
    """Replace what multiprocessing sends to a new process, once; it has an effect on our own starts only.

    Our children get nothing about the main module. So a child does not import it, and a script needs no ``if
    __name__ == "__main__"`` guard. multiprocessing itself would look at the main module in any case, and fail
    where that has no ``__spec__`` (under pdb before Python 3.13) or is gone.
    """
    with _patch_lock:
        from multiprocessing import spawn

        original, command = spawn.get_preparation_data, spawn.get_command_line
        if getattr(original, "_is_ipevents", False):
            return

        def get_preparation_data(name: str) -> dict[str, Any]:
            return _preparation_data(name) if getattr(_ours, "starting", False) else original(name)

        def get_command_line(**kwds: Any) -> list[str]:
            line = command(**kwds)
            if getattr(_ours, "starting", False) and not getattr(sys, "frozen", False):
                line[1:1] = missing_options(line, sys._xoptions, sys.orig_argv)
            return line

        get_preparation_data._is_ipevents = True  # type: ignore[attr-defined]  # a mark for the test above
        spawn.get_preparation_data = get_preparation_data
        spawn.get_command_line = get_command_line


def _preparation_data(name: str) -> dict[str, Any]:
    """Return what multiprocessing sends to a new process, but nothing of the main module.

    SIGINT is blocked there by the first entry.
    """
    from multiprocessing import spawn, util

    private: Any = spawn  # not in typeshed, nor what follows
    private._check_not_importing_main()
    private = util
    began_in = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    current = process.current_process()
    data = {
        "ipevents": _Blocked(),  # first: a fork server starts processes with its own mask
        "name": name,
        "log_to_stderr": private._log_to_stderr,
        "authkey": current.authkey,
        "sys_path": [began_in if entry == "" else entry for entry in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": began_in,
        "dir": os.getcwd(),
        "start_method": multiprocessing.get_start_method(allow_none=True),
    }
    if private._logger is not None:
        data["log_level"] = private._logger.getEffectiveLevel()
    return data


def missing_options(line: list[str], given: Mapping[str, str | bool], typed: list[str]) -> list[str]:
    """Return the ``-X`` options and the ``-u`` of this interpreter that the command line ``line`` lacks.

    ``line`` is for another interpreter, ``typed`` is the command line of this one, ``given`` has its ``-X``
    options. multiprocessing passes on all ``-X`` options in the newest Pythons only, in others those of a
    short list, and never ``-u``.
    """
    there = {after.partition("=")[0] for option, after in zip(line, line[1:], strict=False) if option == "-X"}
    found = []
    for name, value in given.items():
        if name not in there:
            found += ["-X", name if value is True else f"{name}={value}"]
    return ["-u", *found] if _is_unbuffered(typed) else found


def _is_unbuffered(typed: list[str]) -> bool:
    """Return whether ``-u`` is among the options of a command line, before the script, ``-c`` or ``-m``."""
    words = iter(typed[1:])
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            return False
        if word.startswith("--"):  # --check-hash-based-pycs always
            next(words, None)
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in "ucm":
                return letter == "u"
            if letter in "WX":  # with a value: the rest of the word, else the next one
                if at == len(word):
                    next(words, None)
                break
    return False
