"""The fork server's own process, and the first steps of each child that it forks.

The server is an interpreter that has imported what every child needs and nothing of the user's. It has one
thread, which waits for requests of its owner, for the ends of its children, and for the end of the owner. It
forks a child for each request and sends back its pid, a pidfd, and in the end its exit code.

A request is one message on the control socket: the thread that starts the child, and descriptors (see
``Request``). What the child is to do comes through a socket of its own, once the owner knows its pid. If the
owner gives the start up before that, this socket ends, and so does the child.

The server ends when its owner does, or when the owner has closed the control socket and no child is left.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import importlib.machinery
import importlib.util
import io
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from multiprocessing import process, resource_tracker, spawn
from typing import Any, NamedTuple, NoReturn

from .._payload.inheritance import MAX_DESCRIPTORS
from . import moment

# The thread that starts the child, beside the descriptors. Its surroundings follow after a HIDDEN.
REQUEST = struct.Struct("!q")
# A report of the server: the pid of a child, or the negative errno of why there is none; later its exit code.
REPORT = struct.Struct("!q")
STALE = -(1 << 32)  # in place of an errno: the owner is not any more where this server is
HIDDEN = STALE - 1  # likewise: the owner cannot be looked at, and has to tell its surroundings
MAX_TOLD = 1 << 16  # bytes of the surroundings in a request
UNFIT = 3  # exit status of a server that cannot serve this owner, and no other one could
_IDLE_MILLISECONDS = 50  # in which the first child comes online; imports here would take its processor
_FAILED = 1  # exit status of a child whose start was given up

_inherited: list[int] = []  # in a child: the descriptors that came with the request for it


class Request(NamedTuple):
    """The descriptors of a request, in the order in which they are sent; those of the user follow."""

    data: int  # the child's end of the socket by which it gets what it is to do
    report: int  # the server's end of the socket for pid and exit code
    directory: int  # the working directory
    tracker: int  # of multiprocessing's resource tracker
    stdin: int
    stdout: int
    stderr: int


class Inherited:
    """Stands in a child's pickles for a descriptor that came with its request.

    It replaces the ``DupFd`` of ``multiprocessing.reduction``.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """Return the descriptor, which belongs to the caller from now on."""
        return _inherited[self._number]


_Modules = Sequence[tuple[str, str]]  # names of modules to import, with their files


def serve(control: int, owner: int, file: str, at_once: _Modules, then: _Modules) -> NoReturn:
    """Serve the process ``owner`` until it ends. The whole program of the server. Raises SystemExit.

    ``file`` is where the owner's own ipevents was imported from. The modules ``at_once`` are imported before
    the first fork, and ``then`` before the second one, when the first child is online; what would be
    imported from elsewhere is left to the children. Returns in no process: the server ends at once, and a
    child as every interpreter does.
    """
    server = _Server(socket.socket(fileno=control), owner, then)
    if importlib.import_module(__package__.partition(".")[0]).__file__ != file:
        os._exit(UNFIT)  # another copy of the library
    _preload(at_once)
    if _is_changed():
        os._exit(UNFIT)
    _be_silent()
    request = server.run()
    if request is None:
        os._exit(0)
    raise SystemExit(_run(request))


def _preload(modules: _Modules) -> None:
    for name, file in modules:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin == file:
            importlib.import_module(name)
    gc.freeze()  # what was made so far is never looked at again, so its pages stay shared


def _is_changed() -> bool:
    """Return whether a hook of site-packages has started a thread here, or a tool that traces.

    A fork would copy neither in a working state.
    """
    threads = len(os.listdir("/proc/self/task"))
    return threads > 1 or sys.gettrace() is not None or sys.getprofile() is not None


def _be_silent() -> None:
    """Let go of the owner's standard streams: whoever reads them waits for an end that must not be ours."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number, inheritable=True)
    os.close(null)


# The server


class _Server:
    """The loop of the server's only thread, and the children that have not ended."""

    def __init__(self, control: socket.socket, owner: int, later: _Modules) -> None:
        # From here on for good; each child gets the signal mask and the limits of its starter.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would leave no exit code to report
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two descriptors for each child
        self._control: socket.socket | None = control
        self._owner, self._owner_pid = os.pidfd_open(owner), owner
        if os.getppid() != owner:  # it has ended, and its pid may be another's by now
            os._exit(_FAILED)
        self._later = later  # modules to be imported after the first fork; then empty
        self._has_forked = False
        self._starter = 0  # the owner's thread that has sent the request that is at work
        self._told = b""  # what it has told of its surroundings
        self._inherited: list[int] = []  # the user's, of the request that is at work
        self._children: dict[int, tuple[int, int]] = {}  # by pidfd: pid, and the socket to report to
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._owner, select.POLLIN)

    def run(self) -> Request | None:
        """Serve. Returns None in the server, at its end, and in each child the request for it."""
        while self._control is not None or self._children:
            idle = _IDLE_MILLISECONDS if self._has_forked and self._later else None
            ready = [descriptor for descriptor, _ in self._poll.poll(idle)]
            if not ready:
                self._preload_later()
            if self._owner in ready:
                return None
            for descriptor in ready:
                if descriptor in self._children:
                    self._ended(descriptor)
                elif (request := self._receive()) is not None and self._fork(request):
                    return request
        return None

    def _preload_later(self) -> None:
        """Import what the first child did not have to wait for: when it is online, or before the second one.

        A child runs already, whose exit code only this process can report, so it must live on. Where a module
        fails here, it fails in those children that need it, and they report that.
        """
        later, self._later = self._later, ()
        if not later:
            return
        with contextlib.suppress(Exception):
            _preload(later)

    def _receive(self) -> Request | None:
        """Return the next request; None, and no further one is expected, where the owner has closed."""
        assert self._control is not None
        fixed = len(Request._fields)
        most = fixed + 2 + MAX_DESCRIPTORS["forkserver"]  # 2: the control channel and the page
        data, descriptors, _, _ = socket.recv_fds(
            self._control, REQUEST.size + MAX_TOLD, most, socket.MSG_CMSG_CLOEXEC
        )
        if data:
            self._inherited = descriptors[fixed:]
            (self._starter,), self._told = REQUEST.unpack_from(data), data[REQUEST.size :]
            return Request(*descriptors[:fixed])
        self._poll.unregister(self._control)
        self._control.close()
        self._control = None
        return None

    def _fork(self, request: Request) -> bool:
        """Fork a child for this request, and report its pid. Returns whether this process is the child."""
        if self._has_forked:
            self._preload_later()
        report = socket.socket(fileno=request.report)
        obstacle = self._obstacle()
        if obstacle is not None:
            self._report(report, obstacle)
        else:
            try:
                pid = os.fork()
            except OSError as exc:
                self._report(report, -(exc.errno or errno.EAGAIN))
            else:
                if not pid:
                    report.detach()
                    self._forget()
                    _inherited[:] = self._inherited
                    return True
                self._started(pid, report)
        report.close()  # unless a child has it
        for descriptor in (*request, *self._inherited):
            if descriptor != request.report:
                os.close(descriptor)
        return False

    def _obstacle(self) -> int | None:
        """Return what to report instead of forking; None where the starter is where this server is."""
        own = moment.surroundings("self", os.getpid())
        if self._told:
            return None if self._told == own.told() else STALE
        theirs = moment.surroundings(self._owner_pid, self._starter)
        if theirs == own:
            return None
        return HIDDEN if theirs.root is None else STALE

    def _started(self, pid: int, report: socket.socket) -> None:
        """Report a child and watch it. Without a descriptor for that there is no child."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as exc:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._report(report, -(exc.errno or errno.EMFILE))
            return
        self._has_forked = True
        self._report(report, pid, pidfd)
        self._children[pidfd] = (pid, report.detach())
        self._poll.register(pidfd, select.POLLIN)

    def _report(self, report: socket.socket, number: int, pidfd: int | None = None) -> None:
        """Send something about a child to the owner, if that still wants to know."""
        try:
            socket.send_fds(
                report, [REPORT.pack(number)], [] if pidfd is None else [pidfd], socket.MSG_NOSIGNAL
            )
        except OSError:  # the owner has given the start up; the child's socket has ended as well
            return

    def _ended(self, pidfd: int) -> None:
        """Reap a child and report its exit code."""
        pid, report = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with socket.socket(fileno=report) as told:
            self._report(told, code)

    def _forget(self) -> None:
        """In a child: close what belongs to the server."""
        assert self._control is not None
        self._control.close()
        os.close(self._owner)
        for pidfd, (_, report) in self._children.items():
            os.close(pidfd)
            os.close(report)


# A child


def _run(request: Request) -> int:
    """Become the process that the owner asked for, and run it. Returns its exit status."""
    os.close(request.report)
    os.fchdir(request.directory)
    os.close(request.directory)
    for number, descriptor in enumerate((request.stdin, request.stdout, request.stderr)):
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)
    resource_tracker._resource_tracker._fd = request.tracker  # type: ignore[attr-defined]  # as spawn_main does
    sentinel = os.dup(request.data)  # its end is that of the starter, for multiprocessing.parent_process()
    with open(request.data, "rb") as from_starter:
        current: Any = process.current_process()
        try:
            moment.apply(moment.Moment(*pickle.load(from_starter)))
        except EOFError:  # the starter has given this start up
            os._exit(_FAILED)
        _renew_streams()
        _forget_places()
        gc.enable()
        current._inheriting = True
        try:
            spawn.prepare(pickle.load(from_starter))
            new: Any = pickle.load(from_starter)
        finally:
            del current._inheriting
    status: int = new._bootstrap(parent_sentinel=sentinel)
    return status


def _forget_places() -> None:
    """Look anew at places to import from, as a new interpreter does: the server has seen them as they were.

    For directories Python does so by itself, but one that was not there counts as none for ever, and a zip
    file is not read again.
    """
    finder: Any
    for place, finder in list(sys.path_importer_cache.items()):
        if not isinstance(finder, importlib.machinery.FileFinder):
            if hasattr(finder, "invalidate_caches"):  # a zip file's outlives its finder
                finder.invalidate_caches()
            del sys.path_importer_cache[place]


def _renew_streams() -> None:
    """Open the standard streams anew, as the interpreter does at its start: on other files by now.

    Their encodings depend on the environment and on options, which the server shares with the starter.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before: Any = getattr(sys, f"__{name}__")
        if before is None:
            continue
        raw = io.FileIO(number, mode, closefd=False)
        raw.name = f"<{name}>"
        unbuffered = bool(before.write_through)  # by -u
        buffer: Any = raw
        if mode == "r":
            buffer = io.BufferedReader(raw)
        elif not unbuffered:
            buffer = io.BufferedWriter(raw)
        made = io.TextIOWrapper(
            buffer,
            before.encoding,
            before.errors,
            "\n",
            line_buffering=not unbuffered and (raw.isatty() or name == "stderr"),
            write_through=unbuffered,
        )
        made.mode = mode  # type: ignore[misc]  # as the interpreter sets it
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
