"""How a process finds its place at the public socket: it connects, or listens there if nobody answers.

At a path the processes coordinate by a lock file: whichever has the lock connects or begins to listen. At a
port the system decides: of several processes that bind it at once, one succeeds, and the others try to
connect again until that one listens.
"""

from __future__ import annotations

import errno
import socket
from multiprocessing.connection import Listener
from typing import TYPE_CHECKING, NamedTuple

from .._core.addresses import Address, spelled, to_connect
from .._core.handshake import HANDSHAKE_SECONDS
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError
from .._platform.threads import Deadline
from .dial import Attempt, Connected, connect, dial, shake_hands
from .socket_file import SocketFile, bind, check_path, locked
from .sockets import listen_at_all, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.handshake import Identity

__all__ = ["Joined", "Listening", "Waiting", "join"]

RACE_SECONDS = 1.0  # how long another program may take from its bind to its listen
RACE_STEP_SECONDS = 0.02


class Listening(NamedTuple):
    """Nobody answered: the listeners for an Acceptor, and the socket file of the only one (None for TCP)."""

    listeners: Sequence[Listener]
    socket_file: SocketFile | None

    def close(self) -> None:
        """Listen no more; for a caller that got the listeners and cannot use them."""
        if self.socket_file is not None:
            self.socket_file.remove()
        for listener in self.listeners:
            listener.close()


class Waiting:
    """Nobody answered, and this process may only connect."""

    __slots__ = ()

    def close(self) -> None:
        """Does nothing, as nothing is held."""


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

    If there is a path only that is used, otherwise only host and port. Of any number of processes of one
    machine that call this at once, exactly one listens, and the others connect to it as soon as its Acceptor
    runs. That holds also where the host has several addresses, see ``_core.addresses``. Hand a ``Listening``
    to an Acceptor soon, because others are already waiting for it.

    Blocks for the handshake's ``deadline_seconds`` and a second or so, and in the worst case as long as
    :func:`dial`. If ``attempt`` is broken off, this raises LinkError within a few milliseconds, whatever it
    waits for, except during the look-up of a host's name.

    Raises as ``dial`` does, and :exc:`LinkError`, naming each address and its reason, where neither
    connecting nor listening is possible; then nothing is left but the lock file.
    """
    attempt = attempt or Attempt()
    where = spelled((host, port) if socket_path is None else socket_path)

    def reach(addresses: Sequence[Address]) -> Connected:
        return dial(addresses, key=key, key_id=b"", me=me, deadline_seconds=deadline_seconds, attempt=attempt)

    def shake(sock: socket.socket) -> Connected:
        return shake_hands(sock, where, (key, b"", me), deadline_seconds, attempt)

    def once() -> Joined:
        joined: Joined | None = None
        try:
            if socket_path is None:
                joined = _join_port(host, port, only_connect, reach, attempt)
            else:
                joined = _join_path(socket_path, only_connect, shake, attempt)
            attempt.check()
        except BaseException:  # broken off at the last moment, or by a signal handler
            if joined is not None:
                joined.close()
            raise
        return joined

    try:
        try:
            return once()
        except AddressInUse as error:
            if attempt.is_broken_off or not isinstance(error.__cause__, ConnectionResetError):
                raise
            # The other end hung up without a frame. It may be a stranger, or a server that was just stopping
            # and hung up on the clients in its backlog. Try once more: a stranger hangs up again.
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
    """Connect to the socket at a path, or listen there.

    The second connect is made under the path's lock, so that of several processes only one listens.
    """
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
                # This listens before the lock is released, so the next process that has the lock connects.
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
    """Connect to one of the host's addresses, or listen at all of them that this machine has.

    If a port is taken by a program that does not answer yet, this tries again for RACE_SECONDS.
    """
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
        except OSError as error:  # a LinkError is one as well, with no errno
            where = spelled((host, port))
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror or error
                raise LinkError(f"can neither connect to {where} nor listen there: {reason}") from error
            if patience.passed():
                text = f"{where} is taken by something that does not listen there ({error.strerror})"
                raise AddressInUse(text) from error
        # Another program is between its bind and its listen, or has taken one of several addresses that both
        # want. No event says when that is over.
        attempt.pause(RACE_STEP_SECONDS)
