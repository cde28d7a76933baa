"""One connection to a server at one of several addresses: the connect, then the client's handshake.

A connect that may be broken off has a time limit, and every handshake has one deadline for the whole of it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core.addresses import Address, on_loopback, spelled
from .._core.handshake import HANDSHAKE_SECONDS, ClientHandshake, FrameReader, Welcomed, framed
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError, ProtocolError
from .._platform.clock import sleep
from .._platform.interruptible import interruptible
from .._platform.latches import wait_ready
from .._platform.logs import Log
from .._platform.threads import Deadline
from .sockets import advice, connection_from, connection_to, peer_uid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from .._core.handshake import Agreement, Identity

__all__ = ["Attempt", "Connected", "connect", "dial", "receive", "shake_hands"]

CONNECT_SECONDS = 10.0  # for one address: the kernel tries three more times if a packet is lost
# Between two tries at a full backlog of AF_UNIX, which has no event to wait for. While strangers flood the
# server, a place in it is free for moments only, so a client that tries rarely comes late.
_STEP_SECONDS = 0.002
# The shutdown in break_off() wakes Linux's poll. Other systems may not do so: look this often there.
_LOOK_SECONDS = None if sys.platform == "linux" else 0.5

log = Log("ipevents.connector")


class Connected(NamedTuple):
    """A connection after its handshake, blocking, the server's answer, and what both have agreed on."""

    connection: Connection
    welcomed: Welcomed
    agreement: Agreement

    def close(self) -> None:
        """Hang up; for a caller that got the connection and cannot use it."""
        self.connection.close()


class Attempt:
    """A dial, or a whole ``join``, which another thread or a signal handler may break off.

    The dialling thread calls ``check`` before each step, and hands the socket on which it is about to wait to
    ``watch``. So a wait ends in either case: if the break came before it, ``watch`` shuts the socket down at
    once; if it comes during the wait, ``break_off`` does. A wait without a socket is made of steps of
    ``pause``.
    """

    __slots__ = ("_lock", "_socket", "is_broken_off")

    def __init__(self) -> None:
        # Guards the life of _socket: no thread may shut down a descriptor that was closed meanwhile.
        # Re-entrant, for a break_off() in a signal handler.
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self.is_broken_off = False  # never back to False

    def break_off(self) -> None:
        """Make the dial fail soon, whatever it waits for, now or later. Never blocks; may be called again."""
        with self._lock:
            self.is_broken_off = True
            if self._socket is not None:
                _shut_down(self._socket)

    def abandon(self) -> None:
        """Close the descriptor in a process made by ``os.fork()``; takes no lock."""
        if self._socket is not None:
            self._socket.close()

    def watch(self, sock: socket.socket | None) -> None:
        """In the dialling thread: this is the socket to break off; None when it is not needed any more."""
        with self._lock:
            self._socket = sock
            if sock is not None and self.is_broken_off:
                _shut_down(sock)

    def check(self) -> None:
        """In the dialling thread: raise LinkError if the attempt was broken off."""
        if self.is_broken_off:
            raise LinkError("the attempt to connect was broken off")

    def pause(self, seconds: float) -> None:
        """In the dialling thread: sleep for a step of milliseconds, then ``check``."""
        sleep(seconds)
        self.check()


def dial(
    addresses: Sequence[Address],
    *,
    key: bytes,
    key_id: bytes,
    me: Identity,
    forwarded: bool = False,
    session: int | None = None,
    deadline_seconds: float = HANDSHAKE_SECONDS,
    attempt: Attempt | None = None,
) -> Connected:
    """Connect and shake hands with the first server of the tree at one of the addresses, tried in order.

    Returns the connection and the server's welcome. Blocks, for each address, for CONNECT_SECONDS at most in
    the ``connect``, and for ``deadline_seconds`` in the handshake. Without an ``attempt`` it cannot be broken
    off, and multiprocessing's ``Client`` connects, limited by the kernel only. Children connect to their
    parent in this way. ``forwarded``: the server need not call the connection as this end does. ``session``:
    the session that this end has, 0 if it wants one, None if it wants none; over TCP only.

    Raises, naming every address tried with its reason: :exc:`ConnectionRefusedError` or
    :exc:`FileNotFoundError` if nobody is there, :exc:`AddressInUse` (a stranger answered or hung up),
    :exc:`HandshakeTimeout` (silence), :exc:`AuthenticationFailed` (different keys), :exc:`LinkError`
    (refused, or unreachable).
    """
    failures: list[tuple[Address, OSError]] = []
    for address in addresses:
        where = spelled(address.where)
        try:
            sock = connect(address, attempt)
            whom = (key, key_id, me)
            return shake_hands(sock, where, whom, deadline_seconds, attempt or Attempt(), forwarded, session)
        except OSError as error:
            if attempt is not None:
                attempt.check()
            failures.append((address, error))
    summary, cause = _summed_up(failures)
    raise summary from cause


def _summed_up(failures: Sequence[tuple[Address, OSError]]) -> tuple[OSError, BaseException | None]:
    """What to raise when all addresses failed, and its cause.

    An answer counts most: its exception is raised rather than one about an address where nobody was.
    """
    errors = [error for _, error in failures]
    answers = [error for error in errors if isinstance(error, LinkError)]
    nobody = [error for error in errors if isinstance(error, ConnectionRefusedError | FileNotFoundError)]
    if len(failures) == 1 and (answers or nobody):
        return errors[0], errors[0].__cause__
    text = "; ".join(
        str(error)
        if isinstance(error, LinkError)
        else f"{spelled(where)}: {error.strerror}{'' if family == 'AF_UNIX' else advice(error.errno, where)}"
        for (family, where), error in failures
    )
    if answers:
        return type(answers[0])(text), answers[0].__cause__
    if nobody:
        return ConnectionRefusedError(errno.ECONNREFUSED, text), nobody[0]
    return LinkError(f"cannot connect to {text}"), errors[0] if errors else None


@interruptible
def connect(address: Address, attempt: Attempt | None = None) -> socket.socket:
    """Return a socket connected to whatever listens at the address. Raises OSError as the system does.

    With an ``attempt`` it can be broken off (LinkError), and waits for CONNECT_SECONDS at most
    (TimeoutError). A signal handler may raise in here.
    """
    family, where = address
    if attempt is None:
        with connection_to(address) as connection:
            # The socket owns a descriptor of its own; in the end a Connection takes it over again.
            sock = socket.socket(fileno=os.dup(connection.fileno()))
    else:
        sock = socket.socket(getattr(socket, family))
    try:
        if attempt is not None:
            attempt.watch(sock)
            _connect(sock, where, attempt, Deadline(CONNECT_SECONDS))
        if sock.family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
            # The kernel picked the free port to which we connect for our own end as well. Nobody listens
            # there, and this connection would keep a server from taking the port.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    except BaseException:  # also of a signal handler: only this function has the socket yet
        try:
            if attempt is not None:
                attempt.watch(None)
        finally:
            sock.close()
        raise
    return sock


def _connect(sock: socket.socket, where: Any, attempt: Attempt, deadline: Deadline) -> None:
    """Connect as ``Client`` does, but so that the wait can be broken off.

    The socket is non-blocking: while the kernel tries to connect, this thread polls, and a shutdown ends the
    poll. AF_UNIX has no such state: a connect to a full backlog fails with EAGAIN, and no event says when
    there is room; so it is tried again in small steps.
    """
    sock.setblocking(False)
    while True:
        attempt.check()
        number = sock.connect_ex(where)
        if number == errno.EINPROGRESS:
            number = _outcome(sock, deadline)
        attempt.check()  # after a break the kernel's error number says nothing
        if number != errno.EAGAIN:
            break
        if deadline.passed():
            number = errno.ETIMEDOUT
            break
        attempt.pause(_STEP_SECONDS)
    if number:
        raise OSError(number, os.strerror(number))  # OSError makes the subclass that belongs to the number


def _outcome(sock: socket.socket, deadline: Deadline) -> int:
    """Wait for the end of a connect that is in progress; return its error number, 0 for success."""
    while not deadline.passed():
        left = deadline.left() or 0.0
        if wait_ready(sock, select.POLLOUT, left if _LOOK_SECONDS is None else min(left, _LOOK_SECONDS)):
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.ETIMEDOUT


def shake_hands(
    sock: socket.socket,
    where: str,
    as_whom: tuple[bytes, bytes, Identity],
    deadline_seconds: float,
    attempt: Attempt,
    forwarded: bool,
    session: int | None,
) -> Connected:
    """Run the client's side of the handshake on ``sock``; returns the connection and the welcome.

    ``as_whom`` is key, key id and identity; ``forwarded`` and ``session`` as for ``dial``. The returned
    Connection takes the socket's descriptor over; in every other case the socket is closed.
    """
    try:
        if sock.family == socket.AF_UNIX and (uid := peer_uid(sock)) not in (None, 0, os.geteuid()):
            raise LinkError(f"at {where} listens a process of another user (uid {uid})")
        address = b"" if forwarded else on_loopback(sock.getpeername())
        seals = sock.family != socket.AF_UNIX
        wanted = session if seals else None
        handshake = ClientHandshake(*as_whom, os.urandom(32), address=address, seals=seals, session=wanted)
        attempt.watch(sock)
        welcomed = _welcome(sock, where, handshake, Deadline(deadline_seconds))
        attempt.watch(None)
        return Connected(connection_from(sock), welcomed, handshake.agreement)
    finally:
        try:
            attempt.watch(None)
        finally:
            sock.close()  # does nothing if the Connection has taken its descriptor


def _welcome(sock: socket.socket, where: str, handshake: ClientHandshake, deadline: Deadline) -> Welcomed:
    """Exchange the frames of the handshake; returns the server's welcome.

    Errors are turned into the exceptions of ``dial``. Until one frame made sense, the other end counts as a
    stranger.
    """
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
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # of this process, for its wait
        if is_stranger:
            text = f"what listens at {where} hung up without a word: it may not be ipevents"
            raise AddressInUse(text) from ConnectionResetError(str(error))
        raise LinkError(f"{where} hung up in the handshake") from error
    return handshake.outcome


@interruptible
def receive(sock: socket.socket, reader: FrameReader, deadline: Deadline) -> bytes:
    """The next frame of the handshake. Raises OSError. A signal handler may raise in here."""
    while True:
        _limit(sock, deadline)
        if not wait_ready(sock, select.POLLIN, deadline.left()):
            continue
        received = sock.recv(reader.missing)
        if not received:
            raise ConnectionResetError("hung up")
        frame = reader.feed(received)
        if frame is not None:
            return frame


def _send(sock: socket.socket, frame: bytes, deadline: Deadline) -> None:
    """Send one frame of the handshake within the deadline."""
    _limit(sock, deadline)
    sock.sendall(framed(frame))


def _say_farewell(sock: socket.socket, frame: bytes, deadline: Deadline) -> None:
    """Send the server the reason for breaking the handshake off, if that is possible."""
    try:
        _send(sock, frame, deadline)
    except OSError as error:
        log.debug("! the reason did not reach the server: %s", error)


def _limit(sock: socket.socket, deadline: Deadline) -> None:
    """Set the socket's timeout to what is left of the whole handshake. Raises TimeoutError if nothing is.

    With a fixed timeout for each read, a peer that sends a byte now and then would never time out.
    """
    left = deadline.left()
    if left == 0.0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


def _shut_down(sock: socket.socket) -> None:
    """Shut a socket down; that the other end has done so already is no error."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("! shutdown: %s", error)  # the other end has hung up already
