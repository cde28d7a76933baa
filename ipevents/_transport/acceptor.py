"""The accept loop: one thread for the listening sockets of one server and for every handshake on them.

A handshake never runs within ``accept()``, where one silent client would hold up all others. Each connection
in its handshake (``Pending``) is non-blocking and has one deadline for the whole handshake. Their number is
bounded: if there are too many, the oldest is closed, since an honest client needs only milliseconds.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from .._core.addresses import on_loopback, spelled
from .._core.handshake import (
    FOREIGN_USER,
    GARBLED,
    HANDSHAKE_SECONDS,
    HUNG_UP,
    TIMEOUT,
    Refusal,
    ServerHandshake,
)
from .._exceptions import LinkError
from .._platform.clock import monotonic
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.threads import Deadline, join_thread, run_rounds, start_thread
from .pending import Pending
from .sockets import connection_from, listening_socket, peer_uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection, Listener

    from .._core.handshake import Agreement, Identity
    from .socket_file import SocketFile

__all__ = ["Accepted", "Acceptor"]

MAX_PENDING = 1024
# Connections that are accepted at one address before the handshakes are looked at again. With one at a time a
# flood fills the backlog, and a TCP client that finds it full tries again after 1 s only.
ACCEPTS_IN_A_ROUND = 64
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 1.0
CLOSE_SECONDS = 5.0

EVICTED = "evicted"
FAILED = "failed"  # a fault of the library, logged with its traceback

# Errors of accept() that concern only the connection that was about to be accepted.
_PASSING = {errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN}
# A shutdown of a listening socket wakes Linux's select. Other systems may not do so: look this often there.
_LOOK_SECONDS = None if sys.platform == "linux" else 0.5

log = Log("ipevents.acceptor")


class Accepted(NamedTuple):
    """A client that was let in, under the name ``pid``, and its connection.

    That is blocking, and nothing that follows the handshake was read from it.
    """

    connection: Connection
    identity: Identity
    pid: str
    key_id: bytes
    agreement: Agreement


class Acceptor:
    """Accepts connections on ``listeners``, which it owns from now on.

    Several listeners are several addresses of one server, and their clients are treated alike.

    All callbacks run in the acceptor's thread, must not block, and run no code of the user:

    - ``me()``: who we are, asked for every connection;
    - ``find_key(key_id)``: the key of that id, or None;
    - ``admit(identity, key_id, address, session)``: the pid that an authenticated client gets and the
      number of its session, or a :class:`Refusal`. ``address`` is the client's end as seen here, see
      ``spelled``; ``""`` for AF_UNIX. ``session`` is what the client wants, see ``ServerHandshake``.
      ``admit`` only decides: the client may be gone before its WELCOME is sent;
    - ``on_accepted(accepted)``: takes the connection over;
    - ``on_refused(cause, address)``: a handshake failed. Causes are a closed list, and those of ``admit``.

    ``name`` names the thread. At most ``max_pending`` handshakes go on at a time, or as many as a quarter
    of the descriptors that this process may have, whichever is less. ``socket_file``, if a listener has
    one, is removed at the end.
    """

    __slots__ = (
        "__weakref__",
        "_admit",
        "_closing",
        "_find_key",
        "_forwarded",
        "_listeners",
        "_lock",
        "_max_pending",
        "_me",
        "_name",
        "_on_accepted",
        "_on_refused",
        "_over",
        "_pause_seconds",
        "_paused_until",
        "_pending",
        "_selector",
        "_socket_file",
        "_sockets",
        "_thread",
        "_unclaimed",
    )

    def __init__(
        self,
        *listeners: Listener,
        name: str,
        me: Callable[[], Identity],
        find_key: Callable[[bytes], bytes | None],
        admit: Callable[[Identity, bytes, str, int | None], tuple[str, int] | Refusal],
        on_accepted: Callable[[Accepted], None],
        on_refused: Callable[[str, str], None],
        socket_file: SocketFile | None = None,
        forwarded: bool = False,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._listeners = listeners
        sockets = map(listening_socket, listeners)
        self._sockets = {sock.fileno(): sock for sock in sockets}  # the listening ones, by descriptor
        self._me = me
        self._find_key = find_key
        self._admit = admit
        self._on_accepted = on_accepted
        self._on_refused = on_refused
        self._socket_file = socket_file
        self._forwarded = forwarded
        self._max_pending = _bounded(max_pending)
        self._pending: dict[int, Pending] = {}  # by descriptor, the oldest first
        self._paused_until: float | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS
        # Guards _closing and the life of the listening descriptors: no thread may shut down a number that
        # was closed and belongs to another file by now. Re-entrant, for close() in a signal handler.
        self._lock = threading.RLock()
        self._closing = False
        self._name = name
        self._unclaimed = [self]  # the thread takes this out when it begins; if it may not run, we do
        self._over = Latch()  # set when the thread has closed everything
        self._selector = selectors.DefaultSelector()
        try:
            for sock in self._sockets.values():
                # If it blocked, a connection that vanishes between select and accept would stop the loop.
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ)
            self._thread = start_thread(f"acceptor-{name}", self._run)
        except BaseException:  # no thread, or a signal handler; the listeners are the caller's again
            self._closing = True
            try:
                self._unclaimed.pop()
            except IndexError:  # the thread runs: it closes all and ends before the caller does
                self._shut_down()
                self._over.wait(CLOSE_SECONDS)
            else:
                self._selector.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open"
        return f"<Acceptor {self._name} {state}, {len(self._pending)} in handshake>"

    def begin_close(self) -> None:
        """Accept nothing more; the thread is about to end. Never blocks; may be called again."""
        with self._lock:
            if not self._closing:
                self._closing = True  # OPEN -> CLOSING, before the thread can wake
                self._shut_down()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """End the thread, close the listeners and what is in its handshake; return whether all ended.

        May be called from any thread, any number of times. Accepted connections are not touched. In the
        acceptor's own thread it only asks for the end. The caller holds no lock that a callback needs.

        Why the thread ends: it blocks in ``select`` only. ``shutdown`` of the listening sockets wakes it,
        which ``close`` would not do. A TCP socket leaves LISTEN for CLOSE, an AF_UNIX one is marked as shut
        on both sides, and both are then reported as hung up, whatever events were asked for, also during a
        pause. From the shutdown on further connects are refused. At its end the thread may wait for the
        lock of a contested socket file, 5 s at most. Then this returns False, and the thread, a daemon,
        ends by itself.
        """
        self.begin_close()
        if threading.current_thread() is self._thread:
            return False
        if join_thread(self._thread, Deadline(timeout_seconds)):
            return True
        log.warning("! %r did not end within %s s", self, timeout_seconds)
        return False

    def abandon(self) -> None:
        """Close our descriptors in a process made by ``os.fork()``; nothing is shut down or removed.

        The connections and the file are the parent's. Takes no lock: a thread that held it during the fork
        does not exist in this process.
        """
        self._closing = True
        # close() only: unregister() would change the epoll set that is shared with the parent.
        self._selector.close()
        self._close_listeners()
        for pending in self._pending.values():
            pending.socket.close()

    def _shut_down(self) -> None:
        """Shut the listening sockets down, which wakes the thread."""
        for sock in self._sockets.values():
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                # macOS refuses it for a listening socket; there the thread looks at _closing now and then.
                log.debug("! shutdown of %r: %s", self, error)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    # From here on everything runs in the acceptor's thread.

    def _run(self) -> None:
        """The thread: accept and advance handshakes until the close, then give everything back."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return
        try:
            run_rounds(self._round, lambda: self._closing, log, self)
        finally:
            self._release()

    def _round(self) -> None:
        """Wait for the next connection, for something to read, or for a time that is over, and handle it."""
        for key, _events in self._selector.select(self._patience_seconds()):
            pending: Pending | None = key.data
            if pending is None:
                self._accept_some(key.fd)
            elif self._pending.get(key.fd) is pending:  # it was not evicted in this very round
                self._guarded(pending)
        self._expire(monotonic())

    def _patience_seconds(self) -> float | None:
        """How long ``select`` may wait: until the first deadline, the end of a pause, or the next look."""
        oldest = next(iter(self._pending.values()), None)
        moments = [] if oldest is None else [oldest.deadline]
        if self._paused_until is not None:
            moments.append(self._paused_until)
        left = [max(0.0, moment - monotonic()) for moment in moments]
        if _LOOK_SECONDS is not None:
            left.append(_LOOK_SECONDS)
        return min(left, default=None)

    def _expire(self, now: float) -> None:
        """Refuse the handshakes whose deadline has passed, and end a pause that is over."""
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if oldest.deadline > now:
                break  # the oldest comes first, and all have the same time limit
            self._refuse(oldest, TIMEOUT)
        if self._paused_until is not None and self._paused_until <= now:
            self._paused_until = None
            self._listen_for(selectors.EVENT_READ)

    def _release(self) -> None:
        """The thread's last step: remove the socket file, close listeners and unfinished handshakes.

        The file goes before its socket is closed, see ``SocketFile.remove``.
        """
        if self._socket_file is not None:
            self._socket_file.remove()
        with self._lock:
            self._closing = True  # CLOSING -> CLOSED
            self._selector.close()
            self._close_listeners()
        while self._pending:
            self._pending.popitem()[1].socket.close()
        self._over.set()

    # Accepting

    def _accept_some(self, descriptor: int) -> None:
        """Accept what waits at one address, up to ACCEPTS_IN_A_ROUND connections."""
        for _ in range(ACCEPTS_IN_A_ROUND):
            if not self._accept(descriptor):
                return

    def _accept(self, descriptor: int) -> bool:
        """Accept one connection and begin its handshake. Where the system lacks means, begin a pause.

        Returns False where no further one is to be accepted in this round.
        """
        if self._paused_until is not None:
            return False  # woken by the shutdown, or a later socket of the round in which the pause began
        try:
            sock, peer = self._sockets[descriptor].accept()
        except OSError as error:
            if not self._closing and error.errno not in _PASSING:
                self._pause(error)
            return False
        if self._pause_seconds > FIRST_PAUSE_SECONDS:
            self._pause_seconds = FIRST_PAUSE_SECONDS
            log.warning("= %r accepts connections again", self)
        address = "" if sock.family == socket.AF_UNIX else spelled(peer)
        try:
            self._begin(sock, address)
        except Exception:  # a fault of the library, or no memory: only this connection ends
            sock.close()
            log.exception("! connection from %s", address or "this machine")
        return True

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a while, because no descriptor or no memory is left.

        The connection stays in the backlog, so ``select`` would return at once, 250,000 times a second.
        During the pause it asks whether the sockets are writable. A listening socket never is; so only a
        shutdown is reported.
        """
        if self._pause_seconds == FIRST_PAUSE_SECONDS:
            log.warning("! %r cannot accept connections just now: %s", self, error)
        self._paused_until = monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        self._listen_for(selectors.EVENT_WRITE)

    def _listen_for(self, events: int) -> None:
        for sock in self._sockets.values():
            self._selector.modify(sock, events)

    def _begin(self, sock: socket.socket, address: str) -> None:
        """Begin the handshake of a new connection.

        Another user's process is refused at once. If too many handshakes are going on, the oldest is closed.
        """
        if sock.family == socket.AF_UNIX and peer_uid(sock) not in (None, 0, os.geteuid()):
            sock.close()
            self._report(FOREIGN_USER, address)
            return
        if len(self._pending) >= self._max_pending:
            self._refuse(next(iter(self._pending.values())), EVICTED)
        sock.setblocking(False)
        called = b"" if self._forwarded else on_loopback(sock.getsockname())
        seals = sock.family != socket.AF_UNIX
        handshake = ServerHandshake(self._find_key, self._me(), os.urandom(32), address=called, seals=seals)
        pending = Pending(sock, address, monotonic() + HANDSHAKE_SECONDS, handshake)
        self._selector.register(sock, selectors.EVENT_READ, pending)
        self._pending[sock.fileno()] = pending

    # A handshake that goes on, and its end

    def _guarded(self, pending: Pending) -> None:
        """Advance one handshake; whatever goes wrong in it ends this connection only."""
        try:
            authenticated = pending.advance()
            if authenticated is not None:
                self._decide(pending, *authenticated)
        except LinkError:
            pending.try_to_send(pending.handshake.farewell)
            self._refuse(pending, pending.handshake.cause or GARBLED)
        except OSError:
            self._refuse(pending, HUNG_UP)
        except Exception:  # a fault of the library: only this connection ends
            log.exception("! handshake with %s", pending.address or "a process of this machine")
            self._refuse(pending, FAILED)

    def _decide(self, pending: Pending, identity: Identity, key_id: bytes) -> None:
        """Admit an authenticated client and hand its connection over, or send it the reason for a refusal."""
        handshake = pending.handshake
        verdict = self._admit(identity, key_id, pending.address, handshake.session_wanted)
        if isinstance(verdict, Refusal):
            pending.try_to_send(handshake.refuse(verdict))
            self._refuse(pending, verdict.cause)
            return
        pid, session = verdict
        pending.send(handshake.welcome(pid, session))
        self._forget(pending)
        connection = connection_from(pending.socket)
        try:
            self._on_accepted(Accepted(connection, identity, pid, key_id, handshake.agreement))
        except Exception:  # no descriptor left, or a fault of the library: only this connection ends
            log.exception("! link to %s", pid)
            connection.close()

    def _forget(self, pending: Pending) -> None:
        """Take a connection out of the table and the selector; its socket stays open."""
        del self._pending[pending.socket.fileno()]
        self._selector.unregister(pending.socket)

    def _refuse(self, pending: Pending, cause: str) -> None:
        """Close a connection whose handshake has failed, and report the cause."""
        if pending.socket.fileno() in self._pending:
            self._forget(pending)
        pending.socket.close()
        self._report(cause, pending.address)

    def _report(self, cause: str, address: str) -> None:
        """Call ``on_refused``."""
        try:
            self._on_refused(cause, address)
        except Exception:  # a fault of the library: the connection is refused all the same
            log.exception("! counting a refusal: %s", cause)


def _bounded(max_pending: int) -> int:
    """``max_pending``, or a quarter of the descriptors that this process may have if that is less.

    1,024 silent connections would take up all the descriptors that a process usually has.
    """
    import resource  # late: a child without children of its own needs none

    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max_pending if soft == resource.RLIM_INFINITY else max(1, min(max_pending, soft // 4))
