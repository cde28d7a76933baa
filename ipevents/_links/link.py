"""One neighbour: the connection to it, the thread that reads it, and, in ``writer.py``, the one that writes.

A link outlives its connections: a child's successor and a reconnected server use the same two threads
(a Python whose script has ended may be unable to start new ones).

Locks. The state lock of the emitter guards ``session`` and ``state``, and what writer.py says. Nobody waits
for anything while holding it.

Ends. The reader blocks in ``recv`` (ended by the shutdown of the socket, in ``close_session``), in
``_sessions.get`` (ended by the None that ``end`` puts there), and in what ``on_records`` does: listeners
of the user, or a wait for room in another link, which ends with that link or with progress.
"""

from __future__ import annotations

import errno
import queue
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from .._core.link_state import LinkEvent, LinkState, Right
from .._core.messages import Record
from .._core.wire import FRAME_BYTES, MAX_FRAME_BYTES
from .._exceptions import LinkError, ProtocolError
from .._platform.clock import monotonic
from .._platform.guards import told
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.threads import Deadline, join_thread, start_thread
from .._transport.frame_reader import TimeSlice, Truncated, read_frames
from .._transport.stream import Stream, shut_down
from .writer import Writer

log = Log("ipevents.link")

LAST_WORDS_SECONDS = 0.3  # for a peer to take the reason why this end gives up
_FLUSH_STEP_SECONDS = 0.25  # a look at the session while flushing, in case it ended unnoticed


class Link(Writer):
    """The way to one neighbour. ``lock`` is the emitter's state lock.

    ``on_records(link, records, size)`` is called in the reader thread for every frame of ``size`` bytes.
    ``on_closed(link, error)`` is called there when a connection has been read to its end: ``error`` is None
    for a clean end, a LinkError where the fault is ours or the peer's, another OSError where it is the
    system's. When it raises it is called a second time. It is not called any more after ``end()``: the caller
    of that knows, and may have begun another life.
    """

    def __init__(
        self,
        name: str,
        lock: Any,
        on_records: Callable[[Link, list[Record], int], None],
        on_closed: Callable[[Link, Exception | None], None],
    ) -> None:
        super().__init__(name, lock)
        self.child: Any = None  # the Child of a peer that was started here, for message.child
        self.state = LinkState()
        # What incoming.py has decided for messages that come here, as long as the topology has this version.
        self.decisions: dict[Any, Any] = {}
        self.decided = -1
        self.forwarded = 0
        self.delivered = 0
        self.is_limited = False  # by socket.maxMessage of one of the two ends
        self.limit = MAX_FRAME_BYTES - FRAME_BYTES  # of one record
        self._on_records = on_records
        self._on_closed = on_closed
        self.turn = TimeSlice()
        # What the peer is told where this end cannot read on, given the reason. Set before ``attach``.
        self.last_words: Callable[[str], Record] | None = None
        self._closed = Latch()
        self._closed.set()
        self._sessions: queue.SimpleQueue[Stream | None] = queue.SimpleQueue()
        self._reader = start_thread(f"reader-{name}", self._read_loop)
        try:
            self._start_writer()
        except BaseException:  # no second thread: the first one ends as well
            self._sessions.put(None)
            raise

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open" if self.session else "unconnected"
        return f"<Link to {self.title} {state}, {len(self.outbox)} queued>"

    # Connections

    def count_waiting(self, before: int) -> int:
        """State lock not held: events of users that were given to this link since it had sent ``before``."""
        with self._lock:
            return self.sent - before + self.outbox.count_messages()

    def attach(self, session: Stream) -> None:
        """State lock held: serve this connection from now on; what waits in the outbox is written.

        A link that has ended, for which a connection was on its way, closes it.
        """
        if self.ended and self.session is None:
            session.socket.close()
            return
        self.state.change(LinkEvent.ATTACHED)
        self.session = session
        self._closed = Latch()
        if session.max_message is not None:
            self.limit = session.max_message
        self.is_limited = session.max_message is not None
        self.progress = monotonic()
        self._sessions.put(session)
        if self.outbox.count:
            self.prompt()

    def flush(self, deadline: Deadline) -> bool:
        """State lock held, released meanwhile: wait until the kernel has everything.

        Returns whether it has.
        """
        while (
            self.session is not None
            and not self.session.failed
            and (self.outbox.count or self._right is not Right.FREE)
        ):
            left = deadline.left()
            if left == 0.0:
                return False
            self.prompt()
            self.wait_room(_FLUSH_STEP_SECONDS if left is None else min(left, _FLUSH_STEP_SECONDS))
        return not self.outbox.count

    def say_goodbye(self) -> None:
        """End our direction of the connection: the peer reads what was written, then its end; so do we."""
        session = self.session
        if session is not None:
            shut_down(session.socket, socket.SHUT_WR)

    def close_session(self) -> None:
        """End the connection; the reader reads what is there and calls ``on_closed``.

        Any thread, any lock.
        """
        session = self.session
        if session is not None:
            shut_down(session.socket, socket.SHUT_RDWR)

    def end(self) -> None:
        """State lock held: no connection any more; both threads end. Idempotent."""
        self.state.change(LinkEvent.END)
        if self.ended:
            return
        self.ended = True
        self.close_session()
        self._sessions.put(None)
        self.wake_waiters()
        self.prompt()

    def join(self, deadline: Deadline) -> bool:
        """Wait for both threads, without the state lock. Returns whether they have ended."""
        return join_thread(self._writer, deadline) & join_thread(self._reader, deadline)

    def wait_closed(self, deadline: Deadline) -> bool:
        """Wait, without the state lock, until there is no connection. Returns whether there is none."""
        return self._closed.wait(deadline.left())

    def is_alive(self) -> bool:
        """Whether one of the threads still runs."""
        return self._writer.is_alive() or self._reader.is_alive()

    def is_read_by(self, ident: int) -> bool:
        """Whether this thread is the reader."""
        return self._reader.ident == ident

    def abandon(self) -> None:
        """In a forked child, where the threads do not exist: close the descriptor, touch nothing else."""
        session = self.session
        if session is not None:
            session.socket.close()

    def _read_loop(self) -> None:
        while True:
            session = self._sessions.get()
            if session is None:
                return
            error: Exception | None = None
            try:
                read_frames(session, self.name, self.turn, partial(self._on_records, self))
            except Truncated as exc:
                log.debug("! %s", exc)
            except ProtocolError as exc:
                exc.args = (f"{self.title} sent what makes no sense, and the connection ends: {exc}",)
                error = exc
            except OSError as exc:
                if exc.errno != errno.ECONNRESET:
                    error = exc
            except BaseException as exc:  # a fault of the library or of the system: this connection ends
                log.exception("! reading from %s failed, and the connection ends", self.title)
                error = LinkError(f"reading from {self.title} failed: {told(exc)}")
                error.__cause__ = exc
            if isinstance(error, LinkError) and self.last_words is not None:
                self._say_last_words(self.last_words(told(error)))
            shut_down(session.socket, socket.SHUT_RDWR)
            with self._lock:
                self.state.change(LinkEvent.READ)
                self.session = None
                self._dead.append(session)
                self.wake_waiters()
                self._close_dead()
                closed = self._closed
                ended = self.ended
            try:
                if not ended:  # otherwise the caller of end() knows, and there may be another life by now
                    self._on_closed(self, error)
            except BaseException:  # a fault of the library or of the system, once more before it is given up
                log.exception("! the end of %s", self.title)
                self._on_closed(self, error)
            finally:
                closed.set()

    def _say_last_words(self, record: Record) -> None:
        """In the reader, which has failed: written where that is still possible."""
        try:
            with self._lock:
                self.tell(record)
                self.flush(Deadline(LAST_WORDS_SECONDS))
        except BaseException:  # as the reader before: the peer sees the end of the connection
            log.exception("! the reason did not reach %s", self.name)
