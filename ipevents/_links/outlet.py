"""The outlet of a link: its outbox, and the right to write what is in it.

``Outlet`` is what sending threads use; ``writer.py`` has the thread that writes the rest. ``Link`` is made of
these classes and holds no object of theirs. Each send reads ``outbox`` and ``attended``, and with a step
through ``link.writer`` it took 3 to 4 % longer (CPython 3.11).

Locks. The state lock of the emitter guards the outbox, ``stream``, ``away``, ``resuming``, ``_may_go_on``,
``_right``, ``_owner``, ``_summons`` and ``_waiters``. No thread waits for anything while it holds that lock.
The thread with the right to write adds to the window of its stream without the lock, see window.py. It takes
frames out of ``_again`` without it, too; the reader thread puts another list there when the connection ends.

A session. Where a connection ends whose session may go on, it is ``away``. The next one is ``resuming`` until
both ends have said what they have handled; no thread finds it in ``stream`` before that, so none writes to it
but the writer thread: first what was handled here, then, from ``_again``, what the other end lacks.

The right to write. At most one thread writes to the socket: the one that holds this right. A thread takes it
and gives it back under the state lock, and writes without the lock. A sending thread takes it when the link
is idle; otherwise the writer thread does. Records that are put meanwhile are seen by the holder when it gives
the right back. ``_core/link_state.py`` has the table of its states (``Right``), and a table of what the
writer thread has been asked for (``Summons``).

Signals. A signal handler may raise after any call in this file, and at the beginning of any function, but not
between plain assignments (see threads.py). So each transition is a plain assignment, and stands next to the
other assignments that have to happen together with it.
"""

from __future__ import annotations

import errno
import socket
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from typing import Any

from .._core.books import NONE, plus
from .._core.link_state import Right, Summons
from .._core.messages import (
    KIND,
    LAST_MESSAGE,
    PAYLOADS,
    RESUMED,
    Record,
    control,
    count_messages,
    has_number,
)
from .._core.outbox import Outbox
from .._core.window import (
    ACKNOWLEDGE_SECONDS,
    KEPT_BYTES,
    KEPT_EVENT_BYTES,
    KEPT_FRAME_BYTES,
    MOST_COUNTED,
    Frame,
    Handled,
)
from .._core.wire import Part
from .._core.wire import parts as wire_parts
from .._exceptions import ProtocolError, child_title
from .._platform.clock import monotonic
from .._platform.latches import Latch, let_go
from .._platform.logs import Log
from .._platform.state_lock import StateLock
from .._platform.threads import main_ident
from .._transport.silence import SILENT
from .._transport.stream import AT_ONCE, Stream, remaining, send_parts, shut_down

log = Log("ipevents.link")

QUIET_SECONDS = 100e-6  # a link that wrote nothing for so long is idle: the sender writes at once
CONTROL_BYTES = 64  # what a control record counts for in an outbox
_PEER_IS_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.EBADF)
_NOTHING: list[Any] = []  # never changed; a list, so that the types are plain
# Plain names: to look a member up in its class would be the slowest step of a claim.
_FREE, _CLAIMED, _WRITING, _LEFT = Right.FREE, Right.CLAIMED, Right.WRITING, Right.LEFT
_ASLEEP, _LINGERS, _CALLED, _PROMPTED = Summons.ASLEEP, Summons.LINGERS, Summons.CALLED, Summons.PROMPTED


class _Call:
    """A call in place of a latch among those that wait for room."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.set = call


class Outlet:
    """What a link writes, and which thread writes it. ``lock`` is the emitter's state lock.

    A sender puts a record into ``outbox`` under the lock. If ``attended`` is False it then has to call
    ``claim``, ``defer`` or ``prompt``, so that the record is written.
    """

    # Without these a link would have more attributes than CPython 3.11 can read fast (30).
    __slots__ = (
        "_again",
        "_claimed_for",
        "_dead",
        "_deferred_at",
        "_last_write",
        "_lock",
        "_may_go_on",
        "_owner",
        "_received_then",
        "_rest",
        "_right",
        "_sent_now",
        "_summons",
        "_waiters",
        "_wakeup",
        "acknowledged",
        "acknowledged_as",
        "attended",
        "away",
        "dirty",
        "dropped",
        "ended",
        "given_name",
        "is_quiet",
        "lost",
        "lost_as",
        "name",
        "outbox",
        "outcomes",
        "progress",
        "received",
        "resuming",
        "role",
        "sent",
        "stream",
    )

    def __init__(self, name: str, lock: StateLock) -> None:
        self.name = name  # the peer's pid
        self.role = ""  # what the peer is to this process, and what a child is called: see title
        self.given_name = ""
        self.is_quiet = False  # the peer is a child of which no listener is told, see Neighbour
        self.outbox = Outbox()
        self.stream: Stream | None = None
        # The connection before, whose session the next one may go on with. Its end is told already.
        self.away: Stream | None = None
        # The connection with which a session goes on, until both ends have said what they have handled.
        self.resuming: Stream | None = None
        self._may_go_on = False  # the other end has said so, this one not yet
        self._again: deque[Frame] = deque()  # what is to be written once more, before anything else
        self.ended = False  # a copy of ``Link.state.ended``, because each frame asks for it; see Link._change
        # True while a thread is bound to look into the outbox again: the one with the right to write, or the
        # prompted writer. While False, the thread that puts a record calls claim() or defer().
        self.attended = False
        self.dirty = False  # has records that a listener put; written by the thread that runs listeners
        self.progress = 0.0  # when the peer last took something
        # The books, see books.py. Sent is what was written, by the thread with the right to write.
        self.sent = 0
        self.acknowledged = 0  # of what was sent, by peers that have handled it
        self.acknowledged_as = NONE  # what became of that, as they say
        self.lost = 0  # of what was sent, when the peer ended or could not be reached any more
        self.received = 0
        self.outcomes = NONE  # of what was received; changed by the reader thread, as ``received`` is
        self.dropped: dict[str, int] = {}  # what was lost, and what was never written, by cause
        self.lost_as = "link-cut"  # what the peer has not acknowledged when its connection ends
        self._lock = lock
        self._right = _FREE
        self._owner = 0  # the thread that has the right to write, while it is CLAIMED or WRITING
        self._claimed_for: Stream | None = None  # the connection for which the frame was taken
        self._rest: list[Part] = []  # what the kernel did not take yet; for the holder of the right to write
        self._sent_now: list[int] = []  # bytes that the kernel has taken and that are still in _rest
        # Connections that were read to their ends and whose sockets are still open. There are several where
        # connections come and end while a thread still writes to the first.
        self._dead: list[Stream] = []
        self._summons = _ASLEEP
        self._deferred_at = 0.0  # when the first of what waits was put by a listener, 0.0 for nothing
        self._last_write = 0.0
        self._received_then = -1  # what had been received when a frame was taken last
        self._waiters: list[Latch | _Call] = []
        self._wakeup = allocate_lock()  # released exactly while the summons is CALLED or PROMPTED
        self._wakeup.acquire()

    @property
    def title(self) -> str:
        """The peer's name in texts for people: ``child resize (4718)``, ``client 127.0.0.1:40718``."""
        if self.given_name:
            return child_title(self.given_name, self.name)
        return self.name if self.role in ("", self.name) else f"{self.role} {self.name}"

    def is_written_by(self, ident: int) -> bool:
        """Return whether the thread with this ident holds the right to write."""
        right = self._right  # first: the owner is assigned before the right
        return (right is _CLAIMED or right is _WRITING) and self._owner == ident

    # Sending. All of this is called with the state lock held.

    def drop(self, cause: str, count: int = 1) -> None:
        """Count events that are lost on this link."""
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def tell(self, record: Record) -> None:
        """Queue a control record, and wake the writer thread to write it soon."""
        self.outbox.put(record, CONTROL_BYTES)
        self.prompt()

    def claim(self, links: int = 1, *, prompts: bool = True) -> list[Record] | None:
        """Try to take the right to write together with the next frame.

        Returns the frame's records; then the caller holds the right, releases the lock and calls
        ``write_now`` with them. Returns None when the link is busy, and then wakes the writer thread if
        ``prompts``.

        A link is idle when it wrote nothing for a moment, or when it received something since its last frame:
        so the next message of a conversation does not wait for the writer thread. The moment is as long as
        one turn over all ``links`` of the same fan-out takes.
        """
        stream = self.stream
        if stream is None or stream.failed or self._right is not _FREE:
            return None
        if self.received == self._received_then and monotonic() - self._last_write < links * QUIET_SECONDS:
            if prompts:
                self.prompt()
            return None
        return self._take_out() or None

    def claim_now(self) -> list[Record] | None:
        """Try to take the right to write, as ``claim`` does, even if the link was busy just now.

        For the end of a batch.
        """
        stream = self.stream
        if self._right is not _FREE or stream is None or stream.failed:
            return None
        return self._take_out() or None

    def prompt(self) -> None:
        """Make the writer thread write what waits in the outbox."""
        before = self._summons
        self.attended = True
        self._summons = _PROMPTED
        if before is not _PROMPTED and before is not _CALLED:
            self._wakeup.release()

    def handled_frame(self, size: int) -> None:
        """Note that the frame which was read last is handled, and acknowledge it soon. In the reader thread.

        The writer thread does so within ACKNOWLEDGE_SECONDS. Where much is not acknowledged, that goes with
        what is written before, and at once where the peer keeps it, or ends.
        """
        stream = self.stream or self.resuming
        if stream is None:
            return
        handled = stream.handled
        if handled.handle(size, self.outcomes) or stream.is_leaving:
            with self._lock:
                if stream.keeps or stream.is_leaving:
                    self._acknowledge(stream)
                    return
                self.outbox.put_acknowledgement(*handled.say())
        if not handled.due and not handled.is_withheld:
            handled.due = monotonic() + ACKNOWLEDGE_SECONDS
            if self._summons is _ASLEEP:
                with self._lock:
                    if self._summons is _ASLEEP:
                        self._summons = _PROMPTED
                        self._wakeup.release()

    def _acknowledge(self, stream: Stream) -> None:
        """Queue the acknowledgement of all that was handled, and have it written. Lock held."""
        if stream.handled.is_unsaid:
            self.outbox.put_acknowledgement(*stream.handled.say())
            self.prompt()

    @property
    def handled(self) -> Handled | None:
        """What came with the present connection, None where there is none."""
        stream = self.stream or self.resuming
        return None if stream is None else stream.handled

    def withhold(self) -> None:
        """Acknowledge nothing until ``release``: what was read is only kept. In the reader thread."""
        handled = self.handled
        if handled is not None:
            handled.is_withheld = True
            handled.releases = False

    def release(self) -> None:
        """Acknowledge what was withheld: it is handled. In the reader thread.

        That happens with the end of the frame that is read now.
        """
        handled = self.handled
        if handled is not None:
            handled.releases = True

    def acknowledge(self) -> None:
        """Acknowledge at once all that was handled so far. Lock held."""
        stream = self.stream
        if stream is not None:
            self._acknowledge(stream)

    def take_acknowledgement(self, number: object, outcomes: object) -> None:
        """Note what the peer has handled. Raises ProtocolError. Lock held, in the reader thread."""
        stream = self.stream or self.resuming
        if stream is not None:
            self._note_acknowledged(stream, number, outcomes)
            if self._waiters and not stream.window.is_owed:
                self.wake_waiters()

    def _note_acknowledged(self, stream: Stream, number: object, outcomes: object) -> None:
        """Enter into the books what the peer has handled. Raises ProtocolError. Lock held."""
        events, became = stream.window.acknowledge(number, outcomes)
        self.acknowledged += events
        if became is not NONE:
            self.acknowledged_as = plus(self.acknowledged_as, became)

    def take_resumed(self, number: object, outcomes: object) -> None:
        """Note where the session goes on: the peer has handled all up to this frame, and gets the rest again.

        Raises ProtocolError, and ConnectionResetError where the rest is not there any more. Lock held, in the
        reader thread.
        """
        stream = self.resuming
        if stream is None or self._may_go_on:
            raise ProtocolError("it goes on with a session that is not interrupted")
        if not stream.session:
            raise ConnectionResetError(errno.ECONNRESET, "the session was given up just now")
        self._note_acknowledged(stream, number, outcomes)
        if not stream.window.can_resume:  # the writer thread has found one that it cannot write again
            raise ConnectionResetError(errno.ECONNRESET, "a frame that the peer lacks is not kept any more")
        self._may_go_on = True
        # The writer thread says what was handled here as soon as it has the right to write. Once it has, no
        # other thread has that right: until the session goes on they find no connection to write to.
        if stream.written and self._right is _FREE:
            self._go_on()
            self._claimed_for = stream
            self._right = _CLAIMED
            self._right = _LEFT
        self.prompt()

    def _go_on(self) -> None:
        """Open the connection for writing, with what is to be written again first. Lock held.

        From now on the peer may be slow. It could take nothing before, so that time does not count.
        """
        stream: Any = self.resuming
        self.progress = monotonic()
        self._again = deque(stream.window.frames)
        self._may_go_on = False
        self.resuming, self.stream = None, stream

    @property
    def expects_resumed(self) -> bool:
        """Whether the peer has yet to say where the session goes on, before anything else."""
        return self.resuming is not None and not self._may_go_on

    @property
    def is_cut(self) -> bool:
        """Whether the session has yet to go on: with another connection, or with one that is there already.

        That may last for as long as the other end likes, so the session is given up after a while.
        """
        return self.away is not None or self.expects_resumed

    @property
    def is_interrupted(self) -> bool:
        """Whether there is no connection to write to just now, and the session may go on with another one."""
        return self.away is not None or self.resuming is not None

    def can_resume(self, session: int) -> bool:
        """Return whether the session with this number can go on with another connection. Lock held."""
        stream = self.away or self.stream or self.resuming
        return stream is not None and stream.session == session and stream.window.can_resume

    def forget_session(self, cause: str) -> None:
        """Count what was kept for another connection as lost. Lock held.

        Where that connection is there, and the other end has not said yet where the session goes on, what was
        kept is counted when the connection is read to its end.
        """
        resuming = self.resuming
        if resuming is not None and self.expects_resumed:
            resuming.session, resuming.lost_as = 0, cause
        away, self.away = self.away, None
        if away is not None and away not in self._dead:
            lost = away.window.lose()
            self.lost += lost
            self.drop(cause, lost)
        elif away is not None:  # a thread still has the right to write to it, and may add a frame
            away.lost_as = cause

    @property
    def is_settled(self) -> bool:
        """Whether no thread still writes to a connection that has ended.

        Such a thread is about to note what it has written, and what of that is lost. May be asked without the
        lock when the last connection was read to its end: then no thread takes the right to write any more.
        """
        return not self._dead and self._right is _FREE

    def write_off(self) -> None:
        """Count what is not acknowledged as lost although its connection is still read. Lock held.

        For a link whose reader does not end: a listener keeps it.
        """
        for stream in dict.fromkeys((*self._dead, self.stream, self.resuming, self.away)):
            if stream is not None and not stream.is_passed_on:
                lost = stream.window.lose()
                self.lost += lost
                self.drop(stream.lost_as or self.lost_as, lost)

    def drop_waiting(self, cause: str) -> None:
        """Count what waits as lost, and remove it. Lock held."""
        waiting = self.outbox.events
        self.outbox.clear()
        self.drop(cause, waiting)

    def defer(self) -> None:
        """Note that a listener put a record, which may wait for the end of the frame that is being read.

        The thread that runs the listener writes the record when it is done. If that takes longer than
        LINGER_SECONDS, the writer thread writes it.
        """
        if not self._deferred_at:
            self._deferred_at = monotonic()
        if self._summons is _ASLEEP:
            self._summons = _CALLED
            self._wakeup.release()

    def wait_room(self, timeout: float) -> None:
        """Release the state lock until something leaves the outbox, at most for ``timeout`` seconds.

        The end of the link and ``wake_waiters`` end the wait as well, so the caller has to look again after
        it.
        """
        waiter = Latch()  # where a signal handler may raise; here, between release and acquire, it may not
        self._waiters.append(waiter)
        self._lock.release()
        try:
            waiter.wait(timeout)
        finally:
            self._lock.acquire()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def call_on_room(self, call: Callable[[], None]) -> None:
        """Have this called once, where ``wait_room`` would return. State lock held, then as well.

        It must neither block nor raise, and put nothing.
        """
        self._waiters.append(_Call(call))

    def _take_out(self) -> list[Record]:
        """Take the next frame out of the outbox together with the right to write it. Returns its records.

        Returns an empty list, and leaves the right free, if nothing waits. The right is taken first: where a
        signal handler raises in here, ``give_back`` finds it.
        """
        ident = get_ident()
        stream = self.stream
        if stream is not None:
            if stream.keeps:
                stream.window.trim(KEPT_BYTES)
            elif len(stream.window.frames) > MOST_COUNTED:
                stream.window.count_only()
        self._claimed_for = stream
        self._owner = ident
        self._right = _CLAIMED  # FREE, or in the writer thread WRITING -> CLAIMED
        records = self.outbox.take()
        if not records:
            self._right = _FREE  # CLAIMED -> FREE
            return records
        self.attended = True
        self._received_then = self.received
        self._deferred_at = 0.0
        if self._waiters:
            self.wake_waiters()
        return records

    def wake_waiters(self) -> None:
        """End all waits for room and for the end, so that those threads look again."""
        for waiter in self._waiters:
            waiter.set()
        self._waiters.clear()

    # Sending, without the lock.

    def write_now(self, records: list[Record]) -> None:
        """Write what the kernel takes of a claimed frame at once; the writer thread writes the rest.

        An exception that a signal handler of the user raises in the middle passes through. Then the caller
        still has the right to write; ``give_back`` ends that, and nothing is lost.
        """
        outbox = self.outbox
        if self._right is not _CLAIMED or outbox.taken is not records:
            return  # a signal handler raised before this, and that exception gave the claim back
        self._right = _WRITING  # CLAIMED -> WRITING
        lock = self._lock
        try:
            stream: Any = self._claimed_for
            try:
                number = stream.written + 1
                parts = wire_parts(records, stream.seals, number)
                count = 0
                for record in records:
                    if record[KIND] <= LAST_MESSAGE:
                        count += len(record[PAYLOADS])
                window = stream.window
                total = window.total + count
                size = 0
                frame: tuple[Frame, ...] = ()
                if count or has_number(records):  # as in _numbered, without a call
                    if stream.keeps:
                        size = outbox.being_written + KEPT_FRAME_BYTES + count * KEPT_EVENT_BYTES
                    frame = ((total, size, records if size else None),)
                self.sent += count  # as in _encode
                stream.written = number
                window.frames += frame
                window.added += size
                window.total = total
                self._rest = parts
                outbox.taken = _NOTHING
                if send_parts(stream, parts, AT_ONCE, self._sent_now):
                    self._rest, self._sent_now = _NOTHING, []
                self._last_write = self.progress = monotonic()
            except OSError as exc:
                if exc.errno is None:
                    raise  # of a signal handler, TimeoutError, say, and not of the system
                self._write_failed(stream, exc)
                self._rest = _NOTHING
            except Exception:  # no memory for the frame, or a fault of the library: the writer tries again
                if get_ident() == main_ident():
                    raise  # or of a signal handler
            lock.acquire()
            if (
                self._rest
                or outbox.tail
                or outbox.frames
                or outbox.news
                or outbox.taken
                or self._dead
                or self._waiters
                or self.ended
            ):
                self._leave_to_writer()
            else:  # as _release_writing
                self.attended = self._summons is _PROMPTED
                outbox.being_written = 0
                self._right = _FREE  # WRITING -> FREE
            if self._last_write > stream.look_at and not stream.is_watched:
                stream.watch(self._last_write)
                if self._summons is _ASLEEP:
                    self._summons = _PROMPTED
                    self._wakeup.release()
            lock.release()  # the caller runs what was deferred meanwhile
        except BaseException:
            let_go(lock)
            if self._right is _WRITING and self._owner == get_ident():
                self._right = _CLAIMED  # WRITING -> CLAIMED
            raise

    def give_back(self) -> None:
        """Hand what the calling thread has claimed over to the writer thread. For use after an exception.

        Only for claims of code that is over; lock not held. A ``write_now`` that a signal handler has
        interrupted to come here, and that goes on afterwards, is left alone.
        """
        lock = self._lock
        try:
            lock.acquire()
            if self._right is _CLAIMED and self._owner == get_ident():
                self._leave_to_writer()
            elif self.outbox.count and not self.attended:
                self.prompt()
            lock.release()
        except BaseException:  # of a signal handler
            let_go(lock)
            raise

    def _leave_to_writer(self) -> None:
        """Give the right to write back. The writer thread writes what is left and what has come meanwhile.

        Lock held. May be called again where a signal handler has interrupted it.
        """
        self._note_sent()
        if self.ended:  # there may be no writer any more
            self._forget_frame()
        if self._rest or self.outbox.taken:
            self.prompt()
            self._right = _LEFT  # CLAIMED or WRITING -> LEFT
            return
        if self.outbox.count:
            self.prompt()
        self._release_writing()

    def _note_sent(self) -> None:
        """Remove from the rest what the kernel has taken. The caller holds the right to write."""
        if self._sent_now:
            rest = remaining(self._rest, self._sent_now[0])
            self._rest, self._sent_now = rest, []

    def _encode(self) -> None:
        """Turn the frame that was taken into the bytes to be written, and count its messages as sent.

        The caller holds the right to write.
        """
        records = self.outbox.taken
        stream: Any = self._claimed_for
        number = stream.written + 1
        parts = wire_parts(records, stream.seals, number)
        count, size, frame = self._numbered(stream, records)
        window = stream.window
        total = window.total + count
        self.sent += count  # no call from here on: all of it is done, or nothing
        stream.written = number
        window.frames += frame
        window.added += size
        window.total = total
        self._rest = parts
        self.outbox.taken = _NOTHING

    def _numbered(self, stream: Stream, records: list[Record]) -> tuple[int, int, tuple[Frame, ...]]:
        """Return how many messages a frame has, its bytes as far as they are kept, and it for the window.

        It is not in the window where it has no number.
        """
        if not has_number(records):
            return 0, 0, ()
        count = count_messages(records)
        size = 0
        if stream.keeps:
            size = self.outbox.being_written + KEPT_FRAME_BYTES + count * KEPT_EVENT_BYTES
        return count, size, ((stream.window.total + count, size, records if size else None),)

    def _encode_again(self, again: deque[Frame]) -> None:
        """Turn the first of these frames into bytes once more. In the writer thread."""
        stream: Any = self._claimed_for
        number = stream.written + 1
        self._rest = wire_parts(again[0][2], stream.seals, number)
        stream.written = number
        del again[0]

    def _encode_resumed(self, stream: Stream) -> None:
        """Prepare the first frame of a connection with which a session goes on. In the writer thread."""
        self._claimed_for = stream
        self._owner = get_ident()
        self._right = _CLAIMED
        stream.written = 1
        number, outcomes = stream.handled.say()
        resumed = control(RESUMED, number=number, outcomes=outcomes)
        self._rest = wire_parts([resumed], stream.seals, 1)
        self._right = _WRITING

    def _forget_frame(self) -> None:
        """Let go of what is left of a frame: the connection that it was taken for has ended.

        Nobody acknowledges it, so it is lost with that connection, or written again with the next one of the
        same session. The caller holds the right to write.
        """
        records = self.outbox.taken
        if records:
            stream: Any = self._claimed_for
            count, size, frame = self._numbered(stream, records)
            window = stream.window
            total = window.total + count
            self.sent += count  # as in _encode
            window.frames += frame
            window.added += size
            window.total = total
        self._rest, self._sent_now = _NOTHING, []
        self.outbox.taken = _NOTHING

    def _release_writing(self) -> None:
        """Give the right to write back, and close the sockets that were kept open for its holder.

        Lock held.
        """
        self.attended = self._summons is _PROMPTED
        self.outbox.being_written = 0
        self._right = _FREE  # from whatever it was
        if self._dead:
            self._close_dead()
        if self._waiters and (not self.outbox.count or self.stream is None or self.stream.failed):
            self.wake_waiters()

    def _close_dead(self) -> None:
        """Close the sockets of connections that no thread reads or writes any more. Lock held."""
        while self._dead and self._right is _FREE:
            stream = self._dead[-1]
            stream.socket.close()  # may be repeated, where a signal handler raises before the last step
            if stream is not self.away and not stream.is_passed_on:
                cause, lost = stream.lost_as or self.lost_as, stream.window.events
                dropped = {**self.dropped, cause: self.dropped.get(cause, 0) + lost} if lost else self.dropped
                stream.is_passed_on = True  # no call from here on
                self.dropped = dropped
                self.lost += lost
            self._dead.pop()

    def _write_failed(self, stream: Stream, exc: OSError) -> None:
        """Note that the peer reads no more, and end our direction of the connection.

        What the peer wrote before is still read; then the reader thread closes the connection. A dead peer
        would never end it, so then both directions end; the reader thread says why.
        """
        if exc.errno in SILENT:
            stream.is_silent = True
        elif not stream.failed and exc.errno not in _PEER_IS_GONE:
            log.warning("! writing to %s failed, and the connection ends: %s", self.title, exc)
        stream.failed = True
        stream.unwatch()
        shut_down(stream.socket, socket.SHUT_RDWR if stream.is_silent else socket.SHUT_WR)
