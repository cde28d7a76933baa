"""Connect, or listen if nobody answers; and the thread that connects again.

``dial`` makes one connection, ``join`` decides between connecting and listening, a ``Connector`` dials
until it gets through. Every handshake has one deadline for the whole of it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING, NamedTuple

from .._core.handshake import ClientHandshake, FrameReader, Welcomed, framed
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError, ProtocolError
from .acceptor import HANDSHAKE_SECONDS, connection_from, listen
from .logs import Log
from .socketfile import SocketFile, bind, check_path, locked
from .threads import Deadline, join_thread, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.handshake import Identity

__all__ = ["Attempt", "Connected", "Connector", "Joined", "Listening", "Waiting", "dial", "join"]

RACE_SECONDS = 1.0  # how long somebody else may take from his bind to his listen
RACE_STEP_SECONDS = 0.02
MIN_DELAY_SECONDS = 0.05
CLOSE_SECONDS = 1.0
MAX_REPORTED = 16  # distinct causes of failure in one episode

log = Log("ipevents.connector")


class Connected(NamedTuple):
    """A connection behind its handshake, blocking, and what the server told."""

    connection: Connection
    welcomed: Welcomed


class Listening(NamedTuple):
    """Nobody answered: a listener for an Acceptor, and its file (None for TCP)."""

    listener: Listener
    socket_file: SocketFile | None


class Waiting:
    """Nobody answered, and we only connect."""

    __slots__ = ()


Joined = Connected | Listening | Waiting


class Attempt:
    """One dial, which another thread may break off."""

    __slots__ = ("_is_broken_off", "_lock", "_socket")

    def __init__(self) -> None:
        # Guards the life of _socket: nobody shuts down a descriptor that was closed meanwhile.
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._is_broken_off = False

    def break_off(self) -> None:
        """Make the dial fail at once, now or as soon as its ``connect`` returns. Never blocks."""
        with self._lock:
            self._is_broken_off = True
            if self._socket is not None:
                _shut_down(self._socket)

    def abandon(self) -> None:
        """Close the descriptor in a process made by ``os.fork()``; takes no lock."""
        if self._socket is not None:
            self._socket.close()

    def watch(self, sock: socket.socket | None) -> None:
        """Called by the dialling thread: this is the socket to break off, None when it is done."""
        with self._lock:
            self._socket = sock
            if sock is not None and self._is_broken_off:
                _shut_down(sock)


def dial(
    address: str | tuple[str, int],
    family: str,
    *,
    key: bytes,
    key_id: bytes,
    me: Identity,
    deadline_seconds: float = HANDSHAKE_SECONDS,
    attempt: Attempt | None = None,
) -> Connected:
    """Connect and shake hands; return the connection and the server's welcome.

    Blocks for ``deadline_seconds`` at most in the handshake. The ``connect`` before it is bounded by the
    kernel only: minutes for a host that swallows packets, without limit for an AF_UNIX server that is
    stopped and whose backlog is full.

    Raises :exc:`ConnectionRefusedError` or :exc:`FileNotFoundError` if nobody is there, and naming
    the address :exc:`AddressInUse` (a stranger answered or hung up), :exc:`HandshakeTimeout` (silence),
    :exc:`AuthenticationFailed` (different keys), :exc:`LinkError` (refused, or unreachable).
    """
    try:
        sock = _connect(address, family)
    except (ConnectionRefusedError, FileNotFoundError):
        raise
    except OSError as error:
        raise LinkError(f"cannot connect to {_spelled(address)}: {error}") from error
    return _shake(sock, _spelled(address), (key, key_id, me), deadline_seconds, attempt or Attempt())


def join(
    *,
    socket_path: str | None,
    host: str,
    port: int,
    only_connect: bool,
    key: bytes,
    me: Identity,
    deadline_seconds: float = HANDSHAKE_SECONDS,
) -> Joined:
    """Connect to the public socket, or listen there if nobody answers.

    The path is used if there is one, else host and port; never the one for want of the other. Of any
    number of processes that call this at once exactly one listens, and the others connect to it as soon
    as its Acceptor runs. Hand a ``Listening`` to an Acceptor soon: others wait for it already.

    Blocks for the handshake's ``deadline_seconds`` and a second or so, in the worst case as :func:`dial`
    does. Raises as ``dial`` does, and :exc:`LinkError`, naming address and reason, where neither
    connecting nor listening is possible; then nothing is left behind but the lock file.
    """
    address: str | tuple[str, int] = (host, port) if socket_path is None else socket_path
    where = _spelled(address)

    def shake(sock: socket.socket) -> Connected:
        return _shake(sock, where, (key, b"", me), deadline_seconds, Attempt())

    def once() -> Joined:
        if isinstance(address, str):
            return _join_path(address, only_connect, shake)
        return _join_port(address, only_connect, shake)

    try:
        try:
            return once()
        except AddressInUse as error:
            if not isinstance(error.__cause__, ConnectionResetError):
                raise
            # Perhaps no stranger but a server that was just stopping: it hangs up on who is still
            # in its backlog. A stranger does it again.
            return once()
    except (AddressInUse, HandshakeTimeout) as error:
        raise type(error)(f"{error}; choose another socket.port or socketPath") from error.__cause__
    except LinkError:
        raise
    except OSError as error:
        raise LinkError(f"can neither connect to {where} nor listen there: {error}") from error


def _join_path(path: str, only_connect: bool, shake: Callable[[socket.socket], Connected]) -> Joined:
    check_path(path)
    try:
        sock = _connect(path, "AF_UNIX")
    except (ConnectionRefusedError, FileNotFoundError):
        if only_connect:
            return Waiting()
        with locked(path):
            try:
                sock = _connect(path, "AF_UNIX")
            except (ConnectionRefusedError, FileNotFoundError):
                # It listens before the lock is released: who comes next connects.
                return Listening(*bind(path))
    return shake(sock)


def _join_port(
    address: tuple[str, int], only_connect: bool, shake: Callable[[socket.socket], Connected]
) -> Joined:
    patience = Deadline(RACE_SECONDS)
    while True:
        try:
            sock = _connect(address, "AF_INET")
        except ConnectionRefusedError:
            if only_connect:
                return Waiting()
        else:
            return shake(sock)
        try:
            return Listening(listen(address, "AF_INET"), None)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if patience.passed():
                text = f"{_spelled(address)} is taken by something that does not listen there"
                raise AddressInUse(text) from error
        # Somebody is between his bind and his listen. There is no event to wait for.
        time.sleep(RACE_STEP_SECONDS)


def _connect(address: str | tuple[str, int], family: str) -> socket.socket:
    with Client(address, family) as connection:
        # One owner at a time: from here on the socket, in the end a Connection again.
        sock = socket.socket(fileno=os.dup(connection.fileno()))
    try:
        if family == "AF_INET" and sock.getsockname() == sock.getpeername():
            # A connect to a free local port out of the range from which the kernel takes our own end's
            # may meet itself. Nobody is there; kept, it would hold the port against a server.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    except BaseException:
        sock.close()
        raise
    return sock


def _shake(
    sock: socket.socket,
    where: str,
    who: tuple[bytes, bytes, Identity],
    deadline_seconds: float,
    attempt: Attempt,
) -> Connected:
    """Run the client's side on ``sock``, which is closed unless it ends in the returned Connection.

    ``who`` is key, key id and identity.
    """
    try:
        handshake = ClientHandshake(*who, os.urandom(32))
        attempt.watch(sock)
        welcomed = _welcome(sock, where, handshake, Deadline(deadline_seconds))
        attempt.watch(None)
        return Connected(connection_from(sock), welcomed)
    finally:
        attempt.watch(None)
        sock.close()  # nothing is left to close of a detached one


def _welcome(sock: socket.socket, where: str, handshake: ClientHandshake, deadline: Deadline) -> Welcomed:
    reader = FrameReader()
    is_stranger = True  # until one frame made sense
    try:
        _send(sock, handshake.hello(), deadline)
        while handshake.outcome is None:
            answer = handshake.receive(_received(sock, reader, deadline))
            is_stranger = False
            if answer is not None:
                _send(sock, answer, deadline)
    except LinkError as error:
        if handshake.farewell is not None:
            _say_farewell(sock, handshake.farewell, deadline)
        if is_stranger and isinstance(error, ProtocolError):
            raise AddressInUse(f"something that is not ipevents answers at {where}: {error}") from error
        raise type(error)(f"{where}: {error}") from error
    except TimeoutError as error:
        text = f"{where} accepted, but did not finish its handshake in time: too busy, or not ipevents"
        raise HandshakeTimeout(text) from error
    except OSError as error:
        if is_stranger:
            text = f"what listens at {where} hung up without a word: it may not be ipevents"
            raise AddressInUse(text) from ConnectionResetError(str(error))
        raise LinkError(f"{where} hung up in the handshake") from error
    return handshake.outcome


def _received(sock: socket.socket, reader: FrameReader, deadline: Deadline) -> bytes:
    while True:
        _limit(sock, deadline)
        received = sock.recv(reader.missing)
        if not received:
            raise ConnectionResetError("hung up")
        frame = reader.feed(received)
        if frame is not None:
            return frame


def _send(sock: socket.socket, frame: bytes, deadline: Deadline) -> None:
    _limit(sock, deadline)
    sock.sendall(framed(frame))


def _say_farewell(sock: socket.socket, frame: bytes, deadline: Deadline) -> None:
    try:
        _send(sock, frame, deadline)
    except OSError as error:
        log.debug("! the reason did not reach the server: %s", error)


def _limit(sock: socket.socket, deadline: Deadline) -> None:
    # For each step what is left of the whole: a drip of bytes would pass a limit for each read.
    left = deadline.left()
    if left == 0.0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("! shutdown: %s", error)  # the other end was faster


def _spelled(address: str | tuple[str, int]) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


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
        self._thread = start_thread("connector", self._run)

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
            self._due = time.monotonic() + (0.0 if immediately else self._delay_seconds)
            self._changed.notify_all()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """End the thread; return whether it has ended. From any thread, any number of times.

        The thread waits for the next try (notified), for a frame of a handshake (broken off by
        ``shutdown``), or in ``connect``, which only the kernel ends: then this returns False after
        ``timeout_seconds``, and the thread, a daemon, ends when ``connect`` returns. A connection that
        comes too late is closed. The caller holds no lock that a callback needs; from a callback it
        only requests.
        """
        with self._changed:
            self._closing = True
            if self._attempt is not None:
                self._attempt.break_off()
            self._changed.notify_all()
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
            except Exception as error:
                self._failed(error)
            else:
                self._succeeded(connection, welcomed)

    def _next_attempt(self) -> Attempt | None:
        with self._changed:
            while not self._closing:
                left = None if self._due is None else self._due - time.monotonic()
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
        except Exception:
            log.exception("! link as %s", welcomed.pid)
            connection.close()

    def _failed(self, error: Exception) -> None:
        with self._changed:
            self._attempt = None
            if self._closing:
                return
            self._due = time.monotonic() + self._delay_seconds
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
        except Exception:
            log.exception("! reporting %s", error)
