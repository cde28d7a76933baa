"""One connection to whoever listens at an address: connect, then the client's side of the handshake.

Every handshake has one deadline for the whole of it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from multiprocessing.connection import Client, Connection
from typing import TYPE_CHECKING, NamedTuple

from .._core.handshake import ClientHandshake, FrameReader, Welcomed, framed
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError, ProtocolError
from .acceptor import HANDSHAKE_SECONDS
from .logs import Log
from .sockets import connection_from
from .threads import Deadline

if TYPE_CHECKING:
    from .._core.handshake import Identity

__all__ = ["Attempt", "Connected", "connect", "dial", "receive", "shake_hands", "spelled"]

log = Log("ipevents.connector")


class Connected(NamedTuple):
    """A connection behind its handshake, blocking, and what the server told."""

    connection: Connection
    welcomed: Welcomed

    def close(self) -> None:
        """Hang up, for who got it and cannot use it."""
        self.connection.close()


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
        sock = connect(address, family)
    except (ConnectionRefusedError, FileNotFoundError):
        raise
    except OSError as error:
        raise LinkError(f"cannot connect to {spelled(address)}: {error}") from error
    return shake_hands(sock, spelled(address), (key, key_id, me), deadline_seconds, attempt or Attempt())


def connect(address: str | tuple[str, int], family: str) -> socket.socket:
    """Return a socket connected to whoever is there. Raises OSError as the system does.

    A signal handler may raise in here.
    """
    with Client(address, family) as connection:
        # One owner at a time: from here on the socket, in the end a Connection again.
        sock = socket.socket(fileno=os.dup(connection.fileno()))
    try:
        if family == "AF_INET" and sock.getsockname() == sock.getpeername():
            # A connect to a free local port out of the range from which the kernel takes our own end's
            # may meet itself. Nobody is there; kept, it would hold the port against a server.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    except BaseException:  # a signal handler's too: nobody else has the socket yet
        sock.close()
        raise
    return sock


def shake_hands(
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
            answer = handshake.receive(receive(sock, reader, deadline))
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


def receive(sock: socket.socket, reader: FrameReader, deadline: Deadline) -> bytes:
    """The next frame of the handshake. Raises OSError; a signal handler may raise in here."""
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


def spelled(address: str | tuple[str, int]) -> str:
    """An address as texts for users have it."""
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
