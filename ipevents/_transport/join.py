"""How a process finds its place at the public socket: it connects, or listens there if nobody answers.

At a path the processes coordinate by a lock file: whichever has the lock connects or begins to listen. At a
port the system decides: of several processes that bind it at once, one succeeds, and the others try to
connect again until that one listens.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, NamedTuple

from .._core.addresses import Address, spelled, to_connect
from .._core.handshake import HANDSHAKE_SECONDS, Identity
from .._exceptions import AddressInUse, HandshakeTimeout, LinkError
from .._platform.threads import Deadline
from .dial import Attempt, Connected, connect, dial, shake_hands
from .socket_file import SocketFile, bind, check_path, locked
from .sockets import listen_at_all, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Listener

__all__ = ["Joined", "Listening", "Waiting", "join"]

RACE_SECONDS = 1.0  # how long another program may take from its bind to its listen
RACE_STEP_SECONDS = 0.02
RACE_LOOKS = 3  # at least; one that waits for a connect may take longer than RACE_SECONDS by itself


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
    allow_remote: bool = True,
    only_connect: bool,
    key: bytes,
    me: Identity,
    forwarded: bool = False,
    session: int | None = None,
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
    where = spelled((host, port) if socket_path is None else socket_path)
    caller = _Caller(key, me, where, forwarded, session, deadline_seconds, attempt or Attempt())

    def once() -> Joined:
        if socket_path is None:
            return _join_port(host, port, allow_remote, only_connect, caller)
        return _join_path(socket_path, only_connect, caller)

    try:
        try:
            return caller.checked(once)
        except AddressInUse as error:
            if caller.attempt.is_broken_off or not isinstance(error.__cause__, ConnectionResetError):
                raise
            # The other end hung up without a frame. It may be a stranger, or a server that was just stopping
            # and hung up on the clients in its backlog. Try once more: a stranger hangs up again.
            return caller.checked(once)
    except OSError as error:
        if caller.attempt.is_broken_off:
            raise LinkError(f"the attempt to join at {where} was broken off") from error
        if isinstance(error, AddressInUse | HandshakeTimeout):
            raise type(error)(f"{error}; choose another socket.port or socketPath") from error.__cause__
        if isinstance(error, LinkError):
            raise
        raise LinkError(f"can neither connect to {where} nor listen there: {error}") from error


class _Caller(NamedTuple):
    """Who joins, where, and within which times."""

    key: bytes
    me: Identity
    where: str
    forwarded: bool
    session: int | None
    deadline_seconds: float
    attempt: Attempt

    def reach(self, addresses: Sequence[Address]) -> Connected:
        """Connect to one of the addresses and shake hands there."""
        return dial(
            addresses,
            key=self.key,
            key_id=b"",
            me=self.me,
            forwarded=self.forwarded,
            session=self.session,
            deadline_seconds=self.deadline_seconds,
            attempt=self.attempt,
        )

    def shake(self, sock: socket.socket) -> Connected:
        """Shake hands over a socket that is connected."""
        whom = (self.key, b"", self.me)
        return shake_hands(
            sock, self.where, whom, self.deadline_seconds, self.attempt, self.forwarded, self.session
        )

    def checked(self, once: Callable[[], Joined]) -> Joined:
        """Return what ``once`` comes to, or close that where the attempt was broken off meanwhile."""
        joined: Joined | None = None
        try:
            joined = once()
            self.attempt.check()
        except BaseException:  # broken off at the last moment, or by a signal handler
            if joined is not None:
                joined.close()
            raise
        return joined


def _join_path(path: str, only_connect: bool, caller: _Caller) -> Joined:
    """Connect to the socket at a path, or listen there.

    The second connect is made under the path's lock, so that of several processes only one listens.
    """
    check_path(path)
    address = Address("AF_UNIX", path)
    try:
        sock = connect(address, caller.attempt)
    except (ConnectionRefusedError, FileNotFoundError):
        if only_connect:
            return Waiting()
        with locked(path, caller.attempt.pause):
            try:
                sock = connect(address, caller.attempt)
            except (ConnectionRefusedError, FileNotFoundError):
                # This listens before the lock is released, so the next process that has the lock connects.
                listener, socket_file = bind(path)
                return Listening([listener], socket_file)
    return caller.shake(sock)


def _join_port(host: str, port: int, allow_remote: bool, only_connect: bool, caller: _Caller) -> Joined:
    """Connect to one of the host's addresses, or listen at all of them that this machine has.

    If a port is taken by a program that does not answer yet, this tries again for RACE_SECONDS,
    RACE_LOOKS times at least.
    """
    addresses = resolve(host, port, allow_remote=allow_remote)
    patience = Deadline(RACE_SECONDS)
    look = 0
    while True:
        look += 1
        caller.attempt.check()
        try:
            return caller.reach(to_connect(addresses))
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
            if patience.passed() and look >= RACE_LOOKS:
                text = f"{where} is taken by something that does not listen there ({error.strerror})"
                raise AddressInUse(text) from error
        # Another program is between its bind and its listen, or has taken one of several addresses that both
        # want. No event says when that is over.
        caller.attempt.pause(RACE_STEP_SECONDS)
