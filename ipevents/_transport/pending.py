"""A connection that was accepted and is still in its handshake.

It does not block: the acceptor's thread calls it whenever bytes have arrived, so one slow client cannot hold
up the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.handshake import FrameReader, framed
from .._platform.logs import Log

if TYPE_CHECKING:
    import socket

    from .._core.handshake import Identity, ServerHandshake

__all__ = ["Pending"]

log = Log("ipevents.acceptor")


class Pending:
    """The server's end of one handshake: its non-blocking socket, and how far the handshake has come.

    It belongs to the acceptor's thread. That calls ``advance`` when there is something to read, and closes
    the socket at ``deadline`` (monotonic seconds). ``address`` is the client's end, ``""`` for AF_UNIX.
    """

    __slots__ = ("_reader", "address", "deadline", "handshake", "socket")

    def __init__(
        self, sock: socket.socket, address: str, deadline: float, handshake: ServerHandshake
    ) -> None:
        self.socket = sock
        self.address = address
        self.deadline = deadline
        self.handshake = handshake
        self._reader = FrameReader()  # refuses a frame that is longer than any of a handshake

    def advance(self) -> tuple[Identity, bytes] | None:
        """Read and answer what has arrived, up to the end of the client's proof and not a byte further.

        Returns the client and the id of its key once the client is authenticated, and None until then. Raises
        LinkError where the client breaks the protocol, and OSError where it has hung up.
        """
        handshake = self.handshake
        while True:
            try:
                received = self.socket.recv(self._reader.missing)
            except BlockingIOError:
                return None
            if not received:
                raise ConnectionResetError("hung up in its handshake")
            frame = self._reader.feed(received)
            if frame is None:
                continue
            answer = handshake.receive(frame)
            if answer is not None:
                self.send(answer)
            if handshake.authenticated is not None:
                return handshake.authenticated

    def send(self, frame: bytes) -> None:
        """Send a whole frame in one call, or raise OSError.

        A fresh socket has room for all frames of a handshake. If it does not take one at once, the peer has
        made its receive window small on purpose.
        """
        if self.socket.send(framed(frame)) != len(framed(frame)):
            raise ConnectionResetError("took only part of a frame")

    def try_to_send(self, frame: bytes | None) -> None:
        """Send the reason for a refusal, if there is one.

        A failure is only logged, because the peer is refused in any case.
        """
        try:
            if frame is not None:
                self.send(frame)
        except OSError as error:
            log.debug("! the reason did not reach %s: %s", self.address or "the peer", error)
