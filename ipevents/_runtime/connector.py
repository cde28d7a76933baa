"""Connect, or listen if nobody answers; and the thread that connects again.

``join`` decides between connecting and listening, a ``Connector`` dials until it gets through.
"""

from __future__ import annotations

import errno
import socket
import threading
from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, NamedTuple

from .._core.addresses import Address, spelled, to_connect
from .._core.handshake import Welcomed
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError
from .acceptor import HANDSHAKE_SECONDS
from .clock import monotonic
from .dial import Attempt, Connected, connect, dial, shake_hands
from .logs import Log
from .socketfile import SocketFile, bind, check_path, locked
from .sockets import listen_at_all, resolve
from .threads import Deadline, join_thread, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.handshake import Identity

__all__ = ["Connector", "Joined", "Listening", "Waiting", "join"]

RACE_SECONDS = 1.0  # how long somebody else may take from his bind to his listen
RACE_STEP_SECONDS = 0.02
MIN_DELAY_SECONDS = 0.05
CLOSE_SECONDS = 1.0
MAX_REPORTED = 16  # distinct causes of failure in one episode

log = Log("ipevents.connector")


class Listening(NamedTuple):
    """Nobody answered: listeners for an Acceptor, and the file of the only one (None for TCP)."""

    listeners: Sequence[Listener]
    socket_file: SocketFile | None

    def close(self) -> None:
        """Listen no more, for who got it and cannot use it."""
        if self.socket_file is not None:
            self.socket_file.remove()
        for listener in self.listeners:
            listener.close()


class Waiting:
    """Nobody answered, and we only connect."""

    __slots__ = ()

    def close(self) -> None:
        """Nothing is held."""


Joined = Connected | Listening | Waiting


def join(
    *,
    socket_path: str | None,
    host: str,
    port: int,
    only_connect: bool,
    key: bytes,
    me: Identity,
    deadline_seconds: float = HANDSHAKE_SECONDS,
    attempt: Attempt | None = None,
) -> Joined:
    """Connect to the public socket, or listen there if nobody answers.

    The path is used if there is one, else host and port; never the one for want of the other. Of any
    number of processes of one machine that call this at once exactly one listens, and the others connect to
    it as soon as its Acceptor runs; so also where the host has several addresses, see ``_core.addresses``.
    Hand a ``Listening`` to an Acceptor soon: others wait for it already.

    Blocks for the handshake's ``deadline_seconds`` and a second or so, in the worst case as :func:`dial`
    does, and at most until ``attempt`` is broken off: then it raises LinkError within a few milliseconds,
    whatever it waits for (but for the look-up of a host's name). Raises as ``dial`` does, and
    :exc:`LinkError`, naming each address and its reason, where neither connecting nor listening is possible;
    then nothing is left behind but the lock file.
    """
    attempt = attempt or Attempt()
    where = spelled((host, port) if socket_path is None else socket_path)

    def reach(addresses: Sequence[Address]) -> Connected:
        return dial(addresses, key=key, key_id=b"", me=me, deadline_seconds=deadline_seconds, attempt=attempt)

    def shake(sock: socket.socket) -> Connected:
        return shake_hands(sock, where, (key, b"", me), deadline_seconds, attempt)

    def once() -> Joined:
        if socket_path is None:
            joined = _join_port(host, port, only_connect, reach, attempt)
        else:
            joined = _join_path(socket_path, only_connect, shake, attempt)
        if attempt.is_broken_off:
            joined.close()
            attempt.check()
        return joined

    try:
        try:
            return once()
        except AddressInUse as error:
            if attempt.is_broken_off or not isinstance(error.__cause__, ConnectionResetError):
                raise
            # Perhaps no stranger but a server that was just stopping: it hangs up on who is still
            # in its backlog. A stranger does it again.
            return once()
    except OSError as error:
        if attempt.is_broken_off:
            raise LinkError(f"the attempt to join at {where} was broken off") from error
        if isinstance(error, AddressInUse | HandshakeTimeout):
            raise type(error)(f"{error}; choose another socket.port or socketPath") from error.__cause__
        if isinstance(error, LinkError):
            raise
        raise LinkError(f"can neither connect to {where} nor listen there: {error}") from error


def _join_path(
    path: str, only_connect: bool, shake: Callable[[socket.socket], Connected], attempt: Attempt
) -> Joined:
    check_path(path)
    address = Address("AF_UNIX", path)
    try:
        sock = connect(address, attempt)
    except (ConnectionRefusedError, FileNotFoundError):
        if only_connect:
            return Waiting()
        with locked(path, attempt.pause):
            try:
                sock = connect(address, attempt)
            except (ConnectionRefusedError, FileNotFoundError):
                # It listens before the lock is released: who comes next connects.
                listener, socket_file = bind(path)
                return Listening([listener], socket_file)
    return shake(sock)


def _join_port(
    host: str,
    port: int,
    only_connect: bool,
    reach: Callable[[Sequence[Address]], Connected],
    attempt: Attempt,
) -> Joined:
    addresses = resolve(host, port)
    patience = Deadline(RACE_SECONDS)
    while True:
        attempt.check()
        try:
            return reach(to_connect(addresses))
        except ConnectionRefusedError:
            if only_connect:
                return Waiting()
        try:
            return Listening(listen_at_all(addresses), None)
        except OSError as error:  # a LinkError is one, without a number
            where = spelled((host, port))
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or error
                raise LinkError(f"can neither connect to {where} nor listen there: {reason}") from error
            if patience.passed():
                text = f"{where} is taken by something that does not listen there ({error.strerror})"
                raise AddressInUse(text) from error
        # Another program is between its bind and its listen, or holds one of several addresses that both
        # want. There is no event to wait for.
        attempt.pause(RACE_STEP_SECONDS)


class Connector:
    """One thread that dials until it gets through, in as many episodes as are begun.

    ``attempt(attempt)`` dials once; pass its argument to :func:`dial`. The callbacks run in the
    connector's thread, must not block, and run no code of the user:

    - ``on_connected(connection, welcomed)`` ends the episode and takes the connection over;
    - ``on_failed(exception)``: once for each distinct cause in an episode, and never because nobody
      was there. It goes on trying after each.

    ``delay_seconds`` lie between two tries, at least 0.05.

    The thread starts here and serves all episodes, because a Python that has ended its main script may
    not be able to start one.
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_changed",
        "_closing",
        "_delay_seconds",
        "_dial",
        "_due",
        "_on_connected",
        "_on_failed",
        "_reported",
        "_thread",
    )

    def __init__(
        self,
        attempt: Callable[[Attempt], tuple[Connection, Welcomed]],
        *,
        on_connected: Callable[[Connection, Welcomed], None],
        on_failed: Callable[[Exception], None],
        delay_seconds: float,
    ) -> None:
        self._dial = attempt
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._delay_seconds = max(MIN_DELAY_SECONDS, delay_seconds)
        # Guards what follows. Re-entrant, for a close() in a signal handler.
        self._changed = threading.Condition(threading.RLock())
        self._due: float | None = None  # when to dial; None between episodes
        self._attempt: Attempt | None = None  # the dial that is going on
        self._closing = False
        self._reported: set[tuple[type[Exception], str]] = set()
        try:
            self._thread = start_thread("connector", self._run)
        except BaseException:  # of a signal handler, perhaps when the thread runs already
            self._closing = True
            with self._changed:
                self._changed.notify_all()
            raise

    def __repr__(self) -> str:
        if self._closing:
            return "<Connector closed>"
        return f"<Connector {'idle' if self._due is None else 'connecting'}>"

    def begin(self, *, immediately: bool = False) -> None:
        """Begin an episode: the first try comes after the delay, or at once. Never blocks.

        While one is going on this changes nothing, except that ``immediately`` cuts the delay short. After
        ``close`` it does nothing.
        """
        with self._changed:
            if self._closing:
                return
            if self._due is None:
                self._reported.clear()
            elif not immediately:
                return
            self._due = monotonic() + (0.0 if immediately else self._delay_seconds)
            self._changed.notify_all()

    def begin_close(self) -> None:
        """Dial no more; the thread is about to end. Never blocks; idempotent."""
        with self._changed:
            self._closing = True
            if self._attempt is not None:
                self._attempt.break_off()
            self._changed.notify_all()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """End the thread; return whether it has ended. From any thread, any number of times.

        The thread waits for the next try (notified), for a frame of a handshake (broken off by
        ``shutdown``), or for a connect (likewise). Only the look-up of a host's name cannot be broken off:
        where that takes longer, this returns False after ``timeout_seconds``, and the thread, a daemon, ends
        by itself. A connection that comes too late is closed. The caller holds no lock that a callback
        needs; from a callback it only requests.
        """
        self.begin_close()
        if threading.current_thread() is self._thread:
            return False
        return join_thread(self._thread, Deadline(timeout_seconds))

    def abandon(self) -> None:
        """Close our descriptors in a process made by ``os.fork()``; takes no lock."""
        self._closing = True
        if self._attempt is not None:
            self._attempt.abandon()

    # From here on everything runs in the connector's thread.

    def _run(self) -> None:
        while (attempt := self._next_attempt()) is not None:
            try:
                connection, welcomed = self._dial(attempt)
            except Exception as error:  # one that nobody foresaw is reported, and the next try may succeed
                self._failed(error)
            else:
                self._succeeded(connection, welcomed)

    def _next_attempt(self) -> Attempt | None:
        with self._changed:
            while not self._closing:
                left = None if self._due is None else self._due - monotonic()
                if left is not None and left <= 0.0:
                    self._attempt = Attempt()
                    return self._attempt
                self._changed.wait(left)
            return None

    def _succeeded(self, connection: Connection, welcomed: Welcomed) -> None:
        with self._changed:
            self._attempt = None
            self._due = None
            closing = self._closing
        if closing:
            connection.close()
            return
        try:
            self._on_connected(connection, welcomed)
        except Exception:  # no descriptor left, or a fault of the library: the thread lives to dial again
            log.exception("! link as %s", welcomed.pid)
            connection.close()

    def _failed(self, error: Exception) -> None:
        with self._changed:
            self._attempt = None
            if self._closing:
                return
            self._due = monotonic() + self._delay_seconds
        log.debug("! not connected: %s", error)
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return  # nobody there: that is what it waits for
        if not isinstance(error, OSError):
            log.error("! dialling failed", exc_info=error)
        cause = (type(error), str(error))
        if cause in self._reported or len(self._reported) >= MAX_REPORTED:
            return
        self._reported.add(cause)
        try:
            self._on_failed(error)
        except Exception:  # a fault of the library: the thread lives to dial again
            log.exception("! reporting %s", error)
