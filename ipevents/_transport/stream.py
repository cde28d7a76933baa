"""A stream: one connection of a link, that is its socket, and functions that write to it.

The functions here only send and count bytes. What to send, and which thread has the right to write, is
decided by the link's Writer.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from .._core.handshake import Agreement
from .._core.seal import Seals
from .._core.window import Handled, Written
from .._core.wire import Part
from .sockets import kept

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Plain ints: an operation on the enum constants of socket takes longer than finding the kernel's buffer full.
WAITING = int(socket.MSG_NOSIGNAL)
AT_ONCE = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_SEND_BYTES = 512 * 1024  # most bytes in one call, so that progress can be seen


class Stream:
    """One connection of a link; after a reconnect the link has a new one.

    It owns a copy of the connection's descriptor, so the Connection is closed at once.
    """

    __slots__ = (
        "failed",
        "handled",
        "is_leaving",
        "is_passed_on",
        "is_tampered",
        "keeps",
        "lost_as",
        "max_message",
        "opens",
        "resumes",
        "seals",
        "send",
        "sendmsg",
        "session",
        "socket",
        "window",
        "written",
    )

    def __init__(
        self, connection: Connection, max_message: int | None, agreement: Agreement | None = None
    ) -> None:
        """Take the connection over; ``max_message`` is the limit of a record in bytes, None for no limit.

        ``agreement`` tells how frames are sealed, and of which session they are. Without it they are neither.
        """
        keys, self.session, self.resumes = agreement or Agreement()
        self.keeps = bool(self.session)  # what was written, for another connection of the same session
        self.lost_as = ""  # the cause of a loss, where it is not that of the link
        self.is_passed_on = False  # another connection has taken over its window
        self.is_tampered = False  # a frame had a wrong seal: something is between the two ends
        self.is_leaving = False  # the peer has said goodbye, so no other connection of the session follows
        self.max_message = max_message
        self.seals = None if keys is None else Seals(keys.sends)
        self.opens = None if keys is None else Seals(keys.receives)
        self.written = 0  # frames; changed by the thread that has the right to write, with the window
        self.window = Written()
        self.handled = Handled()
        self.failed = False  # a write has failed, so nothing more is written
        try:
            self.socket = socket.socket(fileno=kept(os.dup, connection.fileno()))
            self.socket.setblocking(True)  # whatever socket.setdefaulttimeout() is
            # Looked up once: in a socket each time takes 70 ns longer (CPython 3.11).
            self.send, self.sendmsg = self.socket.send, self.socket.sendmsg
            connection.close()
        except BaseException:  # of a signal handler: no other code has it yet
            self._hang_up(connection)
            raise

    def _hang_up(self, connection: Connection) -> None:
        """Shut down a connection that was not taken over, so that the peer notices.

        A shutdown works even if the number of our copy was lost, because all copies of a descriptor share the
        connection.
        """
        made: socket.socket | None = getattr(self, "socket", None)
        if made is None:
            made = socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        shut_down(made, socket.SHUT_RDWR)
        made.close()


def send_parts(to: Stream | socket.socket, parts: list[Part], flags: int, taken: list[int]) -> bool:
    """Send as much of the parts as one call takes, and append to ``taken`` how many bytes that were.

    Returns whether that is known to be all. If the kernel's buffer is full, nothing is sent and nothing
    appended.

    ``map`` has the number in the list before a signal handler can raise. So the caller always knows how much
    was sent.
    """
    first = parts[0]
    size = len(first)
    try:
        if size >= _SEND_BYTES:
            taken += map(to.send, (first[:_SEND_BYTES],), (flags,))
        elif len(parts) == 1:
            taken += map(to.send, (first,), (flags,))
            return taken[0] == size
        else:
            taken += map(to.sendmsg, ([first, parts[1][:_SEND_BYTES]],), ((),), (flags,))
    except BlockingIOError:
        pass
    return False


def remaining(parts: list[Part], count: int) -> list[Part]:
    """What is left of the parts after ``send_parts`` has sent ``count`` bytes of them in one call."""
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
    """End one or both directions of a socket; it is no error if they have ended already."""
    try:
        sock.shutdown(how)
    except OSError:  # not connected any more, or closed, as was wanted
        return
