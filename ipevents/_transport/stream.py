"""A stream: one connection of a link, that is its socket, and functions that write to it.

The functions here only send and count bytes. What to send, and which thread has the right to write, is
decided by the link's Writer.
"""

from __future__ import annotations

import math
import os
import socket
from typing import TYPE_CHECKING

from .._core.handshake import Agreement
from .._core.liveness import Verdict, judge, limit, look_every
from .._core.seal import Seals
from .._core.window import Handled, Written
from .._core.wire import Part
from .silence import keep_alive, limit_send, on_its_way
from .sockets import kept

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

# Plain ints: an operation on the enum constants of socket takes longer than finding the kernel's buffer full.
WAITING = int(socket.MSG_NOSIGNAL)
AT_ONCE = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_SEND_BYTES = 512 * 1024  # most bytes in one call, so that progress can be seen


class Stream:
    """One connection of a link; after a reconnect the link has a new one.

    It owns a copy of the connection's descriptor, so the Connection is closed at once.

    Whether the peer is dead. Over TCP a write at ``look_at`` or later begins a watch: from then on the writer
    thread looks at the connection every few seconds, until nothing is on its way any more. So whatever is
    written is looked at, and an idle connection wakes nobody. See ``_core/liveness.py``. All of it is changed
    by the holder of the right to write, or by the writer thread with the state lock held.
    """

    __slots__ = (
        "_every",
        "_on_write",
        "_seen_since",
        "dead_after",
        "failed",
        "handled",
        "is_leaving",
        "is_passed_on",
        "is_silent",
        "is_tampered",
        "is_watched",
        "keeps",
        "look_at",
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
        self,
        connection: Connection,
        max_message: int | None,
        agreement: Agreement | None = None,
        dead_after: float = 0.0,
    ) -> None:
        """Take the connection over; ``max_message`` is the limit of a record in bytes, None for no limit.

        ``agreement`` tells how frames are sealed, and of which session they are. Without it they are neither.
        ``dead_after``: seconds after which a peer over TCP that does not answer is dead; 0.0 for never.
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
        self.is_silent = False  # the peer has not answered for too long, and the connection ends
        self.dead_after = 0.0
        self.is_watched = False
        self.look_at = math.inf
        self._every = math.inf
        self._on_write: Callable[[], None] | None = None
        self._seen_since: float | None = None  # each look since then has found something on its way
        try:
            self.socket = socket.socket(fileno=kept(os.dup, connection.fileno()))
            self.socket.setblocking(True)  # whatever socket.setdefaulttimeout() is
            # Looked up once: in a socket each time takes 70 ns longer (CPython 3.11).
            self.send, self.sendmsg = self.socket.send, self.socket.sendmsg
            if dead_after and self.socket.family != socket.AF_UNIX:
                self._begin_to_notice(limit(dead_after))
            connection.close()
        except BaseException:  # of a signal handler: no other code has it yet
            self._hang_up(connection)
            raise

    def _begin_to_notice(self, dead_after: float) -> None:
        """Let a dead peer be noticed."""
        self.dead_after = dead_after
        keep_alive(self.socket, dead_after)
        if on_its_way(self.socket) is not None:
            self._every = look_every(dead_after)
            limit_send(self.socket, self._every)
            self.look_at = 0.0

    def call_at_write(self, call: Callable[[], None]) -> None:
        """Have this called after the next write, once. For a connection that is not watched: not over TCP.

        In any thread: one that writes at this moment may or may not see it. ``call`` must neither block nor
        take a lock.
        """
        self._on_write = call
        self.look_at = 0.0

    def watch(self, now: float) -> None:
        """Begin a watch: something was written, and the time for a look was over."""
        if self._on_write is not None:
            self.look_at = math.inf
            self._on_write()
            return
        self.look_at = now + self._every
        self.is_watched = True

    def unwatch(self) -> None:
        """Look no more: the connection ends."""
        self.look_at = math.inf
        self.is_watched = False

    def look(self, now: float) -> bool:
        """Look whether the peer is alive. Returns whether it is, as far as can be told."""
        self.look_at = now + self._every
        found = on_its_way(self.socket)
        if found is None:
            return True
        if self._seen_since is None:
            self._seen_since = now
        verdict = judge(found, now - self._seen_since, self.dead_after)
        if verdict is Verdict.IDLE:
            self._seen_since = None
            self.look_at = now  # the next write begins another watch
            self.is_watched = False
        return verdict is not Verdict.DEAD

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

    Returns whether that is known to be all. If the kernel's buffer is full, and with WAITING remains so for
    as long as ``limit_send`` says, nothing is sent and nothing appended.

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
