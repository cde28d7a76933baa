"""One neighbour: the link to it, the thread that reads from it, and, in ``writer.py``, the one that writes.

A link outlives its connections: the successor of a child that has ended, and a server that is connected
again, get the same link with the same two threads. (A Python whose script has ended may be unable to start
new ones.) One connection is a ``Stream``; the link holds the present one in ``stream``.

Locks. The state lock of the emitter guards ``stream`` and ``state``, and what outlet.py names. No thread
waits for anything while it holds that lock.

How the reader thread ends. It blocks in four places. ``recv`` is ended by the shutdown of the socket, in
``disconnect``, and by the kernel where the peer is dead; within a frame also by a limit of its own.
``_streams.get`` is ended by the None that ``end`` puts there. ``on_records`` runs listeners of the user or
waits for room in another link; that wait ends with the other link or with progress there. ``wait_told`` ends
with ``end``, too.
"""

from __future__ import annotations

import errno
import queue
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .._core.books import DROPPED, Counters, by_cause, by_place, more, since
from .._core.bounded import Bounded
from .._core.link_state import Connection, LinkEvent, LinkState, Right
from .._core.log_lines import one_line
from .._core.messages import Record, count_messages
from .._core.wire import FRAME_BYTES, MAX_FRAME_BYTES
from .._exceptions import LinkError, ProtocolError, SilentPeer
from .._platform.clock import monotonic
from .._platform.guards import told
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.state_lock import StateLock
from .._platform.threads import Deadline, join_thread, start_thread
from .._transport.frame_reader import Stalled, TimeSlice, Truncated, read_frames
from .._transport.silence import SILENT
from .._transport.stream import Stream, shut_down
from .writer import Writer

log = Log("ipevents.link")

LAST_WORDS_SECONDS = 0.3  # for a peer to take the reason why this end gives up
_DECISIONS_BYTES = 8 << 20  # of decisions that are kept for one link
_FLUSH_STEP_SECONDS = 0.25  # a look at the stream while flushing, in case it ended unnoticed


def _nobody_knows(record: Record) -> None:
    """Ignore a record about the process of a client or a server, which is of no concern here."""


class Link(Writer):
    """The way to one neighbour, over all connections to it. ``lock`` is the emitter's state lock.

    Both callbacks run in the reader thread. ``on_records(link, records, size)`` is called for every frame,
    which has ``size`` bytes. ``on_closed(link, error)`` is called when a connection has been read to its end:
    ``error`` is None for a clean end, a LinkError where the fault is ours or the peer's, another OSError
    where it is the system's. When ``on_closed`` raises, it is called a second time. After ``end()`` it is not
    called any more: the caller of that knows, and may have begun another life.
    """

    def __init__(
        self,
        name: str,
        lock: StateLock,
        on_records: Callable[[Link, list[Record], int], None],
        on_closed: Callable[[Link, Exception | None], None],
    ) -> None:
        super().__init__(name, lock)
        self.child: Any = None  # the Child of a peer that was started here, for message.child
        self.channel: Any = None  # the ControlChannel to a parent, or to the process of a child
        self.page: Any = None  # the SharedPage of a child's process
        self.state = LinkState()  # changed by _change() only
        # What incoming.py has decided for messages that come here, as long as the topology has this version.
        self.decisions: Bounded[Any, Any] = Bounded(_DECISIONS_BYTES)
        self.decided = -1
        self.forwarded = 0  # of what was meant for the peer: from others, and not from here
        self.delivered = 0  # the rest of what was received is in ``outcomes``
        self.ended_here: dict[str, int] = {}  # what of it was dropped, by cause
        self.let_go = 0  # what of it was kept for a while and then dropped; changed with the state lock held
        self._told: Counters = {}  # what was in the books when they were last added to those of the past
        self.is_limited = False  # by socket.maxMessage of one of the two ends
        self.limit = MAX_FRAME_BYTES - FRAME_BYTES  # of one record
        self._on_records = on_records
        self._on_closed = on_closed
        self.turn = TimeSlice()
        # Gets the control records about the peer's process, see controls.py. In the reader thread. Set before
        # ``attach`` where the peer is a child that was started here, or has started this process.
        self.on_control: Callable[[Record], object] = _nobody_knows
        # Makes the record that the peer is sent, with the reason, when this end cannot read on. Set before
        # ``attach``.
        self.last_words: Callable[[str], Record] | None = None
        self._end_told: Latch | None = None  # see wait_told
        self._closed = Latch()
        self._closed.set()
        self._streams: queue.SimpleQueue[Stream | None] = queue.SimpleQueue()
        self.is_handling = False  # the reader thread is in a frame, between its first record and its last
        self.awaits_handling = False  # a stop waits for the end of that
        try:
            self._reader = start_thread(f"reader-{name}", self._read_loop)
            self._start_writer()
        except BaseException:  # no thread, or a signal handler: end() lets a thread that runs already end
            with lock:
                self.end()
            raise

    def __repr__(self) -> str:
        state = "ended" if self.state.ended else "open" if self.connection else "unconnected"
        return f"<Link to {self.title} {state}, {len(self.outbox)} queued>"

    def _change(self, event: LinkEvent) -> None:
        """Go on to the next state.

        State lock held. Raises RuntimeError where there is none, see ``link_state.py``.
        """
        try:
            self.state.change(event)
        finally:  # also where a signal handler raises after it
            self.ended = self.state.ended

    # The books

    def turn_out(self, place: int, count: int) -> None:
        """Count what became of events that were received and not delivered. In the reader thread."""
        self.outcomes = more(self.outcomes, place, count)

    def end_here(self, cause: str, count: int) -> None:
        """Count events that were received and go nowhere. In the reader thread."""
        self.ended_here[cause] = self.ended_here.get(cause, 0) + count
        self.turn_out(DROPPED, count)

    def settle(self, cause: str, held: int) -> None:
        """Count what was received and became nothing, because its frame was not handled to the end.

        ``held`` events are still kept. In the reader thread, with the state lock held.
        """
        missing = self.received - self.delivered - sum(self.outcomes) - held - self.let_go
        if missing > 0:
            self.end_here(cause, missing)

    @property
    def queued(self) -> int:
        """How many events wait to be written. Lock held."""
        return self.outbox.events + count_messages(self.outbox.taken)

    @property
    def unacknowledged(self) -> int:
        """How many events were written, and may still be acknowledged. Lock held."""
        streams = dict.fromkeys((*self._dead, self.stream, self.resuming, self.away))
        return sum(
            stream.window.events for stream in streams if stream is not None and not stream.is_passed_on
        )

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept for this session, in case that it has to go on. Lock held."""
        stream = self.away or self.connection
        return 0 if stream is None else stream.window.kept_bytes

    def counters(self) -> Counters:
        """Return what the books say since they were last added to those of the past. Lock held."""
        return since(self._counters(), self._told)

    def close_books(self) -> Counters:
        """Return the same, and begin new books. Lock held."""
        before, self._told = self._told, self._counters()
        return since(self._told, before)

    def _counters(self) -> Counters:
        ended_here = {**self.ended_here, "stopped": self.ended_here.get("stopped", 0) + self.let_go}
        return {
            ("", "sent"): self.sent,
            ("", "acknowledged"): self.acknowledged,
            ("", "lost"): self.lost,
            ("", "received"): self.received,
            ("", "delivered"): self.delivered,
            ("", "forwarded"): self.forwarded,
            **by_place("acknowledgedAs", self.acknowledged_as),
            **by_place("receivedAs", more(self.outcomes, DROPPED, self.let_go)),
            **by_cause("dropped", self.dropped),
            **by_cause("endedHere", ended_here),
        }

    # Connections

    def count_waiting(self, before: int) -> int:
        """Count the users' events that this link was given since ``sent`` had the value ``before``.

        Takes the state lock, so the caller must not hold it. Events that still wait in the outbox count as
        well.
        """
        with self._lock:
            return self.sent - before + self.outbox.events

    def attach(self, stream: Stream, told: Latch | None = None) -> None:
        """Serve this connection from now on, and write to it what waits in the outbox. State lock held.

        The link may have ended while the connection was being made; then the connection is closed.

        ``told`` is for a connection with which a session goes on, and is set when the end of the connection
        before was announced. Until then nothing that this one brings is handled; see ``wait_told``.
        """
        if self.state.connection is Connection.ENDED:
            stream.socket.close()
            return
        closed, now = Latch(), monotonic()
        self._change(LinkEvent.ATTACHED)
        away = self.away
        # No calls from here until the reader gets the stream: between assignments no signal handler runs.
        if stream.resumes and away is not None:
            stream.window, stream.handled = away.window, away.handled
            stream.handled.due = 0.0  # the first frame will say what was handled
            away.is_passed_on = True
            self._end_told = told
            self.away = None
            self.resuming = stream
        else:
            self.stream = stream
        self._closed = closed
        if stream.max_message is not None:
            self.limit = stream.max_message
        self.is_limited = stream.max_message is not None
        self.progress = now
        self._streams.put(stream)
        if self.outbox.count or self.resuming is not None:
            self.prompt()

    def wait_told(self) -> bool:
        """Wait until the end of the connection before was announced. Returns whether the link goes on.

        In the reader thread, as soon as a session goes on. So what is sent meanwhile is written at once, in
        both directions, however long a listener keeps the announcement waiting. State lock not held. The wait
        ends with the announcement, in the notices thread, or with the link.
        """
        if self._end_told is not None:
            self._end_told.wait()
        return not self.ended

    def flush(self, deadline: Deadline) -> bool:
        """Wait until the kernel has taken everything that is queued. Returns whether it has.

        Where a session is about to go on, that comes first: until the other end has said where, nothing is
        written.

        State lock held by the caller, and released during each wait. The wait ends with an empty outbox, with
        the connection or the link, after which nothing is written, or at the deadline. Not for the reader
        thread while a session is about to go on: what it would wait for it has to read itself.
        """
        while (
            not self.ended
            and (stream := self.connection) is not None
            and not stream.failed
            and (self.outbox.count or self.resuming is not None or self._right is not Right.FREE)
        ):
            left = deadline.left()
            if left == 0.0:
                return False
            self.prompt()
            self.wait_room(_FLUSH_STEP_SECONDS if left is None else min(left, _FLUSH_STEP_SECONDS))
        return not self.outbox.count

    @property
    def is_public(self) -> bool:
        """Whether the peer is a client or a server, and not a child or a parent."""
        return self.role in ("client", "server")

    @property
    def owes(self) -> bool:
        """Whether anything that it was given is not handled by the other end. Lock held.

        Also while a thread has the right to write: it may be about to note what it has written.
        """
        stream = self.connection or self.away
        written = stream is not None and stream.window.events > 0
        return written or self._right is not Right.FREE or self.outbox.events > 0

    def wait_acknowledged(self, deadline: Deadline) -> bool:
        """Wait until the peer has handled all that was written. Returns whether it has.

        State lock held by the caller, and released during each wait. The wait ends with the connection, or at
        the deadline.
        """
        while (stream := self.connection) is not None and not stream.failed and stream.window.is_owed:
            left = deadline.left()
            if left == 0.0:
                return False
            self.wait_room(_FLUSH_STEP_SECONDS if left is None else min(left, _FLUSH_STEP_SECONDS))
        return True

    def wait_handled(self, deadline: Deadline) -> None:
        """Wait until the reader thread has handled the frame in which it is.

        State lock held by the caller, and released during each wait. The wait ends with the connection, or at
        the deadline: a listener may keep the reader.
        """
        self.awaits_handling = True  # before the question: the reader clears its flag, and then looks here
        while self.is_handling and self.connection is not None:
            left = deadline.left()
            if left == 0.0:
                return
            self.wait_room(_FLUSH_STEP_SECONDS if left is None else min(left, _FLUSH_STEP_SECONDS))

    def tell_handled(self) -> None:
        """Let ``wait_handled`` look again. In the reader thread."""
        with self._lock:
            self.wake_waiters()

    def say_goodbye(self) -> None:
        """End our direction of the connection.

        The peer reads what was written, then the end, and ends its own.
        """
        stream = self.connection
        if stream is not None:
            shut_down(stream.socket, socket.SHUT_WR)

    @property
    def connection(self) -> Stream | None:
        """The present connection, also while a session is about to go on with it."""
        return self.stream or self.resuming

    def disconnect(self) -> None:
        """End the connection in both directions.

        The reader thread reads what has arrived and calls ``on_closed``.

        May be called in any thread and under any lock.
        """
        stream = self.connection
        if stream is not None:
            shut_down(stream.socket, socket.SHUT_RDWR)

    def end(self) -> None:
        """End the link for good: close its connection, and let both threads end.

        State lock held. May be called again, also where a signal handler has broken the call before it off:
        then all steps are done once more.
        """
        self._change(LinkEvent.END)
        self.disconnect()
        if self._end_told is not None:
            self._end_told.set()
        self._streams.put(None)
        self.wake_waiters()
        self.prompt()

    def join(self, deadline: Deadline) -> bool:
        """Wait until both threads have ended. Returns whether they have. State lock not held."""
        return join_thread(self._writer, deadline) & join_thread(self._reader, deadline)

    def wait_closed(self, deadline: Deadline) -> bool:
        """Wait until there is no connection and ``on_closed`` has returned. Returns whether that is so.

        State lock not held.
        """
        return self._closed.wait(deadline.left())

    def is_alive(self) -> bool:
        """Return whether one of the two threads still runs."""
        return self._writer.is_alive() or self._reader.is_alive()

    def is_read_by(self, ident: int) -> bool:
        """Return whether the thread with this ident is the reader thread."""
        return self._reader.ident == ident

    def abandon(self) -> None:
        """Close our copy of the socket in a forked child, where the link's threads do not exist.

        Touches nothing else.
        """
        stream = self.connection
        if stream is not None:
            stream.socket.close()

    def _read_loop(self) -> None:
        """Read one connection after the other until ``end()``. This is the body of the reader thread.

        A fault in reading ends the connection, never the thread: the peer is sent the reason where that is
        possible, and ``on_closed`` gets the error.
        """
        while True:
            stream = self._streams.get()
            if stream is None:
                return
            error: Exception | None = None
            may_resume = True
            stream.handled.begin(self.outcomes)
            try:
                read_frames(stream, self.name, self.turn, partial(self._on_records, self))
            except Truncated as exc:
                log.debug("! %s", exc)
            except Stalled:
                text = f"{self.title} stopped in the middle of a frame, and sent nothing for"
                error = SilentPeer(f"{text} {stream.dead_after:g} s; the connection ends")
            except ProtocolError as exc:
                may_resume = stream.is_tampered
                # In one line, because the traceback that is logged has this text as well.
                text = f"{self.title} sent what makes no sense, and the connection ends: {exc}"
                exc.args = (one_line(text),)
                error = exc
            except OSError as exc:
                if exc.errno in SILENT:
                    stream.is_silent = True
                elif exc.errno != errno.ECONNRESET:
                    error = exc
            except BaseException as exc:  # a fault of the library or of the system: this connection ends
                may_resume = False
                log.exception("! reading from %s failed, and the connection ends", self.title)
                error = LinkError(f"reading from {self.title} failed: {told(exc)}")
                error.__cause__ = exc
            if stream.is_silent and error is None:
                error = SilentPeer(f"{self.title} does not answer any more, and the connection ends")
            if isinstance(error, LinkError) and self.last_words is not None:
                self._say_last_words(self.last_words(told(error)))
            elif stream.handled.is_unsaid:
                self._say_last_words(None)
            shut_down(stream.socket, socket.SHUT_RDWR)
            with self._lock:
                self.is_handling = False  # what it was handling came to an error
                self._change(LinkEvent.READ)
                self.stream = self.resuming = None
                self._again, self._may_go_on = deque(), False
                may_resume = may_resume and bool(stream.session) and stream.window.can_resume
                if may_resume and not (stream.is_leaving or self.ended):
                    self.away = stream
                self._dead.append(stream)
                self.wake_waiters()
                self._close_dead()
                closed = self._closed
                ended = self.ended
            try:
                if not ended:  # the caller of end() knows of the end, and may have begun another life
                    self._on_closed(self, error)
            except BaseException:  # a fault of the library or of the system, once more before it is given up
                log.exception("! the end of %s", self.title)
                self._on_closed(self, error)
            finally:
                closed.set()

    def _say_last_words(self, record: Record | None) -> None:
        """Send the peer what was handled, and the reason why this end gives up, where both can be written.

        In the reader thread.
        """
        try:
            with self._lock:
                if self.stream is not None:
                    self._acknowledge(self.stream)
                if record is not None:
                    self.tell(record)
                if self.stream is not None:  # before a session goes on nothing is written
                    self.flush(Deadline(LAST_WORDS_SECONDS))
        except BaseException:  # of any kind: the peer will see the end of the connection only
            log.exception("! the reason did not reach %s", self.name)
