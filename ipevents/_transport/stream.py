"""One connection of a link: its socket, and writing to it."""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection

from .._core.wire import Part
from .sockets import kept

# Plain numbers: an operation on the constants of socket takes longer than the test for a full kernel.
WAITING = int(socket.MSG_NOSIGNAL)
AT_ONCE = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_SEND_BYTES = 512 * 1024  # at most so much in one call, so that progress is seen


class Stream:
    """One connection of a link."""

    __slots__ = ("failed", "max_message", "socket")

    def __init__(self, connection: Connection, max_message: int | None) -> None:
        """Take the connection over; ``max_message`` is the limit of a record in bytes, None for none."""
        self.max_message = max_message
        self.failed = False  # writing is over
        try:
            self.socket = socket.socket(fileno=kept(os.dup, connection.fileno()))
            self.socket.setblocking(True)  # whatever socket.setdefaulttimeout says
            connection.close()
        except BaseException:  # of a signal handler: nobody else has it yet
            self._hang_up(connection)
            raise

    def _hang_up(self, connection: Connection) -> None:
        """End a connection that was not taken over, also where the number of a copy has been lost."""
        made: socket.socket | None = getattr(self, "socket", None)
        if made is None:
            made = socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        shut_down(made, socket.SHUT_RDWR)
        made.close()


def send_parts(sock: socket.socket, parts: list[Part], flags: int, taken: list[int]) -> bool:
    """Send as much of the parts as one call takes; appends to ``taken`` how many bytes that were.

    Returns whether that is known to be all.

    A full kernel takes nothing. ``map`` has the number in the list before a signal handler can raise, so it
    is always known how much has been sent.
    """
    first = parts[0]
    size = len(first)
    try:
        if size >= _SEND_BYTES:
            taken += map(sock.send, (first[:_SEND_BYTES],), (flags,))
        elif len(parts) == 1:
            taken += map(sock.send, (first,), (flags,))
            return taken[0] == size
        else:
            taken += map(sock.sendmsg, ([first, parts[1][:_SEND_BYTES]],), ((),), (flags,))
    except BlockingIOError:
        pass
    return False


def remaining(parts: list[Part], count: int) -> list[Part]:
    """What is left of the parts after so many bytes, as ``send_parts`` sends them in one call."""
    first = parts[0]
    size = len(first)
    if count < size:
        return [first[count:], *parts[1:]]
    count -= size
    rest = parts[1:]
    if count:
        rest[0] = rest[0][count:]
    return [part for part in rest if len(part)]


def shut_down(sock: socket.socket, how: int) -> None:
    """End one or both directions; that they have ended already is no error."""
    try:
        sock.shutdown(how)
    except OSError:  # not connected any more, or closed: that is what was wanted
        return
