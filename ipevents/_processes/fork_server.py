"""The fork server of this process: a helper process that forks its children, started when it is needed.

There is one for each process that starts children. It has imported what a child needs, so that a child comes
into being in a few milliseconds. What the server's own process does is in forking.py.

A server is replaced where it has ended, and where a child must not be forked from it any more: this process
has changed its user, say, and the server has not (see moment.py). A replaced server gets no request, and ends
when the children that it forked have.

Locks. ``_lock`` guards all fields. Its owner may start a server, which takes a millisecond, and waits for the
end of one whose start was broken off or that has ended. It waits for no reply of a server. The lock is
re-entrant: a signal handler may stop the emitter in the middle of a start, and the stop calls ``release``.

No thread. A server ends when this process does, when ``release`` was called by the last that had called
``retain``, and when it is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import sys
import threading
from multiprocessing import spawn, util
from typing import Any, NamedTuple

from .._exceptions import Closed
from .._platform.logs import Log
from .._platform.threads import Deadline, is_readable
from . import moment
from .forking import HIDDEN, REPORT, REQUEST, STALE, UNFIT, Request
from .pidfds import Held
from .preparation import check_interpreter

log = Log("ipevents.supervisor")

_INT = struct.Struct("i")  # a descriptor in a message
_TRIES = 3  # starts of a child, of which each found a server that ended in the middle
_REPLY_SECONDS = 30.0  # for a fork; a server that takes longer is stopped or stuck
_END_SECONDS = 1.0  # for the end of a server that has no children; it takes a millisecond
# What children import, beside what ``import ipevents`` does. The first child waits for what it needs until it
# is online, where it is a function of the script; it does not wait for what it may need then.
_AT_ONCE = (
    "multiprocessing.connection",
    "blinker",
    "ipevents._dispatch.event_signal",
    "ipevents._lifecycle.child_main",
    "ipevents._payload.rebuilt",
    "ipevents._processes.supervisor",
)
_THEN = (
    "cloudpickle",
    "ipevents._payload.by_value",
    "ipevents._payload.main_names",
    "ipevents._processes.forked",
    "ipevents._transport.acceptor",
)


class Unavailable(Exception):
    """No fork server can serve this process. The text says why."""


class Forked(NamedTuple):
    """A process that the server has forked: it waits for what it is to do, see forking.py."""

    pid: int
    pidfd: Held
    report: socket.socket  # where its exit code will come; ends without one where the server is gone
    data: socket.socket  # to the child
    server: _Server  # that has forked it, for ``ForkServer.kill``

    def give_up(self) -> None:
        """Let the process end, which has begun with nothing yet."""
        self.data.close()
        self.report.close()
        self.pidfd.close()


class _Server:
    """A process that serves, or is about to. ``end`` can be called in any state of it."""

    def __init__(self, fingerprint: object) -> None:
        self.fingerprint = fingerprint
        self.control, self._theirs = _pair(socket.SOCK_SEQPACKET)
        # One item each, once it runs. ``map`` has it in the list before a signal handler can raise.
        self._pids: list[int] = []
        self._pidfds: list[int] = []
        self._was_in_sight = False

    def start(self, command: list[str]) -> None:
        """Start the process. No signal reaches it before it has blocked them all by itself."""
        private: Any = util
        number = self._theirs.fileno()
        line = [*command, "-c", _program(number)]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # in it a handler may raise
            self._pids += map(private.spawnv_passfds, (os.fsencode(command[0]),), (line,), ([number],))
            self._pidfds += map(os.pidfd_open, self._pids)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._theirs.close()
        self._was_in_sight = self._is_in_sight()
        log.debug("= the fork server of %d is %d", os.getpid(), self._pids[0])

    def has_ended(self, seconds: float | None = 0.0) -> bool:
        """Return whether the process has ended; waits for that at most so long."""
        if not self._pidfds:
            return True
        return is_readable(self._pidfds[0], seconds)

    def _is_in_sight(self) -> bool:
        try:
            os.readlink(f"/proc/{self._pids[0]}/ns/user")
        except OSError:
            return False
        return True

    def is_out_of_sight(self) -> bool:
        """Return whether this thread may not look at the process any more, or that is gone.

        So it is where the thread has entered a sandbox of Landlock. Nothing else tells of that.
        """
        return self._was_in_sight and not self._is_in_sight()

    def kill(self) -> None:
        """Kill it, if it runs. Its children live on."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfds[0], signal.SIGKILL)

    def hang_up(self) -> None:
        """Send no request any more: it ends when the children that it has forked have."""
        self.control.close()
        self._theirs.close()

    def end(self, deadline: Deadline) -> int:
        """Wait for the end, and kill it at the deadline. Returns its exit code, 0 where that is unknown."""
        code = 0
        if not self.has_ended(deadline.left()):
            self.kill()
        for pid in self._pids:
            try:
                if not self._pidfds:  # a signal handler has broken the start off, or there was no descriptor
                    os.kill(pid, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except (ChildProcessError, ProcessLookupError):  # other code of this process has reaped it
                continue
        self.abandon()
        return code

    def abandon(self) -> None:
        """Close all descriptors."""
        self.hang_up()
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._pidfds.clear()


class ForkServer:
    """The way to the fork server of this process. See the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._server: _Server | None = None  # the one that forks at the moment
        self._servers: list[_Server] = []  # with it, those that were replaced and are not reaped yet
        self._users: set[int] = set()
        self._failure: str | None = None  # why servers fail here, whatever this process does; "": they do not
        self._is_hidden = False  # this process, so it tells servers what they cannot see
        self._is_told = False  # that children are started by spawn

    def retain(self, user: object) -> None:
        """Keep a server that runs until ``release`` was called with the same object."""
        with self._lock:
            self._users.add(id(user))

    def release(self, user: object) -> None:
        """End the server if no other object retains it. Waits for its end, some milliseconds."""
        # A signal handler may have interrupted a start, which holds the lock, to wait for the stop that calls
        # this. Then this goes on without the lock; the start finds its server gone.
        has_lock = self._lock.acquire(timeout=_END_SECONDS)
        try:
            self._users.discard(id(user))
            if self._users:
                return
            self._server = None
            ended, self._servers = self._servers, []
        finally:
            if has_lock:
                self._lock.release()
        for server in ended:
            server.hang_up()
        deadline = Deadline(_END_SECONDS)
        for server in ended:
            server.end(deadline)

    def check(self) -> None:
        """Raise Unavailable if no fork server can serve this process as it is now."""
        if self._failure is None:
            self._failure = moment.unfit() or ""
        why = self._failure or moment.unfit_now()
        if why:
            raise self._unavailable(why)

    def _unavailable(self, why: str) -> Unavailable:
        """Return the error for that. The first one is logged, as the start goes on by spawn."""
        if not self._is_told:
            self._is_told = True
            log.info("= children are started by spawn, as there can be no fork server: %s", why)
        return Unavailable(why)

    def boot(self) -> None:
        """Start a server if there is none for this process as it is now, and do not wait until it serves.

        Its interpreter needs some tens of milliseconds, in which the caller can do what else a start needs.
        Raises as ``fork`` does.
        """
        self.check()
        fingerprint = moment.fingerprint_now()
        with self._lock:
            self._current(fingerprint)

    def fork(self, inherited: list[int], fingerprint: moment.Fingerprint) -> Forked:
        """Fork a child, which waits for what it is to do. ``inherited`` are descriptors for it.

        ``fingerprint`` is that of the calling thread. The server may answer late, and another thread may have
        given up rights meanwhile, which the child would have: then another child is forked.

        Blocks for some milliseconds, with the start of a server for some tens of them. Raises OSError where
        the system refuses it, WorkerRefused where there is no interpreter, Closed, and Unavailable.
        """
        for _ in range(_TRIES):
            self.check()
            forked = self._try(inherited, fingerprint)
            if forked is None:
                continue
            if fingerprint[0] == moment.identity():
                return forked
            forked.give_up()
            fingerprint = moment.fingerprint_now()
        # Another try at each start would take too long. What an ended server has told is the better reason.
        self._failure = self._failure or "each one ends, or is out of date, as soon as it has begun"
        raise self._unavailable(self._failure)

    def _try(self, inherited: list[int], fingerprint: moment.Fingerprint) -> Forked | None:
        """Ask the server for one fork. Returns None where another request is needed."""
        from multiprocessing import resource_tracker

        tracker: Any = resource_tracker
        forked = None
        directory: list[int] = []
        sockets = (*_pair(), *_pair())
        report, their_report, data, their_data = sockets
        try:
            # ``map`` has the number in the list before a signal handler can raise.
            directory += map(os.open, (".",), (os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,))
            request = Request(
                their_data.fileno(), their_report.fileno(), directory[0], tracker.getfd(), 0, 1, 2
            )
            thread = threading.get_native_id()
            content = REQUEST.pack(thread)
            if self._is_hidden:
                content += moment.surroundings("self", thread).told()
            with self._lock:
                server = self._current(fingerprint)
                try:
                    socket.send_fds(server.control, [content], [*request, *inherited], socket.MSG_NOSIGNAL)
                except (BrokenPipeError, ConnectionResetError):
                    self._replace()
                    return None
            their_report.close()  # or its end would not be seen
            forked = self._reply(report, data, server)
            return forked
        finally:
            for descriptor in directory:
                os.close(descriptor)
            for each in sockets if forked is None else (their_data,):
                each.close()

    def _reply(self, report: socket.socket, data: socket.socket, server: _Server) -> Forked | None:
        """Wait for the pid of a child and a pidfd. Returns None where another request is needed."""
        while not is_readable(report.fileno(), _REPLY_SECONDS):
            self.kill(server)
        # ``map`` has both in their lists before a signal handler can raise.
        replies: list[tuple[bytes, Any, int, Any]] = []
        held: list[Held] = []
        try:
            size = socket.CMSG_SPACE(_INT.size)
            replies += map(report.recvmsg, (REPORT.size,), (size,), (socket.MSG_CMSG_CLOEXEC,))
            content, ancillary, _, _ = replies[0]
            numbers = [_INT.unpack(packed)[0] for _, _, packed in ancillary]
            held += map(Held, numbers)
        except ConnectionResetError:
            content = b""
        except BaseException:  # of a signal handler: no other code knows the descriptor
            if not held:
                for _, ancillary, _, _ in replies:
                    for _, _, packed in ancillary:
                        os.close(_INT.unpack(packed)[0])
            raise
        if held:
            return Forked(REPORT.unpack(content)[0], held[0], report, data, server)
        number = REPORT.unpack(content)[0] if content else STALE
        if number > 0:  # the pid of a child, but there was no descriptor left to receive the other one
            number = -errno.EMFILE
        if number not in (STALE, HIDDEN):
            raise OSError(-number, os.strerror(-number))
        with self._lock:
            if number == HIDDEN:
                self._is_hidden = True
            elif self._server is server:
                self._replace()
        return None

    def kill(self, server: _Server) -> None:
        """Kill a server that is stopped or stuck. Its children live on; their exit codes stay unknown.

        Where a signal handler keeps the lock, nothing is done for this time.
        """
        if not self._lock.acquire(timeout=_END_SECONDS):
            return
        try:
            if server in self._servers:  # or it is reaped, and has no descriptor any more
                server.kill()
        finally:
            self._lock.release()

    # The server. All of this is called with the lock held.

    def _current(self, fingerprint: moment.Fingerprint) -> _Server:
        """Return a server that can fork a child for the process as it is now; it is started if need be."""
        check_interpreter()
        command = _command()
        found = (command, fingerprint)
        before = self._server
        if before is not None and (before.fingerprint != found or before.is_out_of_sight()):
            self._replace()
        if self._server is None:
            server = _Server(found)
            self._servers += (server,)
            try:
                server.start(command)
            except BaseException:  # of the system, or of a signal handler
                if server in self._servers:
                    self._servers.remove(server)
                    server.hang_up()
                    server.end(Deadline(_END_SECONDS))
                raise
            if server not in self._servers:
                raise Closed("the emitter was stopped in the middle of the start of a child")
            self._server = server
        assert self._server is not None
        return self._server

    def _replace(self) -> None:
        """Use the server no more, and reap those that have ended."""
        if self._server is not None:
            self._server.hang_up()
            self._server = None
        for server in list(self._servers):
            if server.has_ended():
                self._servers.remove(server)
                if server.end(Deadline(_END_SECONDS)) == UNFIT:
                    self._failure = "it would import another ipevents, or begins with threads or a tracer"

    def abandon(self) -> None:
        """In a process made by os.fork(): the servers are the parent's. Close our copies, start afresh."""
        for server in self._servers:
            server.abandon()
        self.__init__()  # type: ignore[misc]  # every field back to its beginning


def _pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that block, whatever ``socket.setdefaulttimeout`` says.

    With a timeout the descriptor itself does not block, and the other process could not wait for what comes.
    """
    pair = socket.socketpair(socket.AF_UNIX, kind)
    for each in pair:
        each.settimeout(None)
    return pair


def _command() -> list[str]:
    """Return the interpreter and its options for a server, as multiprocessing would start a process."""
    line = list(map(os.fsdecode, spawn.get_command_line()))
    return line[: line.index("-c")]


def _program(control: int) -> str:
    """Return what the interpreter of a server runs.

    No garbage is collected before it has imported everything: that would take longer than to keep it.

    The working directory is no place to import from: python puts it there for ``-c``, and modules of the
    user would be found in it. Ours comes last, for the library that is in no other place.
    """
    package = sys.modules[__package__.partition(".")[0]]
    entry = os.path.dirname(package.__path__[0])
    at_once, then = (
        [(name, file) for name in names if (file := _file(name)) is not None] for names in (_AT_ONCE, _THEN)
    )
    return (
        "import gc, sys; gc.disable(); "
        f"sys.path[:] = [*filter(None, sys.path), {entry!r}]; "
        f"from {__package__}.forking import serve; "
        f"serve({control}, {os.getpid()}, {package.__file__!r}, {at_once!r}, {then!r})"
    )


def _file(name: str) -> str | None:
    """Return the file of a module, imported here or not; None where there is none."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


fork_server = ForkServer()
