"""One neighbour: an outbox, a reader thread, a writer thread, and the connection they serve.

More than 400 lines, because the right to write has one owner at a time, and what takes it, uses it and gives
it back is easier to check in one place.

A link outlives its connections: a child's successor and a reconnected server use the same two threads
(a Python whose script has ended may be unable to start new ones).

Locks. The state lock of the emitter guards the outbox, ``session``, ``_writing``, ``_writer`` and
``_waiters``. Nobody waits for anything while holding it. ``_writing`` is the right to write to the
socket: whoever sets it (a sending thread for an idle link, else the writer) writes outside the lock and
gives it back; records put meanwhile are seen by him when he does.

Ends. The reader blocks in ``recv`` (ended by the shutdown of the socket, in ``close_session``), in
``_sessions.get`` (ended by the None that ``end`` puts there), and in what ``on_records`` does: listeners
of the user, or a wait for room in another link, which ends with that link or with progress. The writer
blocks in ``send`` (ended by the shutdown) and on ``_wakeup`` (released by ``end``).
"""

from __future__ import annotations

import errno
import queue
import socket
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from functools import partial
from typing import Any

from .._core.flow import Outbox, count_messages
from .._core.messages import PAYLOADS, SEND_TO, Record
from .._core.wire import FRAME_BYTES, MAX_FRAME_BYTES, Part
from .._core.wire import parts as wire_parts
from .._exceptions import LinkError, ProtocolError, child_title
from .clock import monotonic
from .guards import told
from .logs import Log
from .reading import Truncated, Turn, read_frames
from .session import AT_ONCE, WAITING, Session, remaining, send_parts, shut_down
from .threads import Deadline, Latch, join_thread, let_go, main_ident, start_thread

log = Log("ipevents.link")

QUIET_SECONDS = 100e-6  # a link that wrote nothing for so long is idle: the sender writes at once
LINGER_SECONDS = 0.002  # how long a listener's record may wait for the frame's end (DESIGN section 5)
LINGER_ROUNDS = 10  # then the writer sleeps until it is woken
CONTROL_BYTES = 64  # what a control record counts for in an outbox
LAST_WORDS_SECONDS = 0.3  # for a peer to take the reason why this end gives up
_THE_WRITER = -1  # as the owner of the right to write, before the writer thread has taken it up
_NOTHING: list[Any] = []  # never changed; a list, so that the types are plain
_FLUSH_STEP_SECONDS = 0.25  # a look at the session while flushing, in case it ended unnoticed


class Link:
    """The way to one neighbour. ``lock`` is the emitter's state lock.

    ``on_records(link, records, size)`` is called in the reader thread for every frame of ``size`` bytes.
    ``on_closed(link, error)`` is called there when a connection has been read to its end: ``error`` None
    for a clean one, a LinkError where the fault is ours or the peer's, another OSError where it is the
    system's. It may be called twice, where it failed. It is not called any more after ``end()``, whose caller
    knows, and may have begun another life.
    """

    def __init__(
        self,
        name: str,
        lock: Any,
        on_records: Callable[[Link, list[Record], int], None],
        on_closed: Callable[[Link, Exception | None], None],
    ) -> None:
        self.name = name  # the peer's pid
        self.role = ""  # what the peer is to this process, and what a child is called: see title
        self.given_name = ""
        self.child: Any = None  # the Child of a peer that was started here, for message.child
        self.outbox = Outbox()
        self.session: Session | None = None
        # Somebody will look into the outbox again: who writes just now, or the writer that is being woken.
        # While it is False, who puts a record sees to it that it is written (claim, or defer).
        self.attended = False
        # What incoming.py has decided for messages that come here, as long as the topology has this version.
        self.decisions: dict[Any, Any] = {}
        self.decided = -1
        self.dirty = False  # has records that a listener put; written by the thread that runs listeners
        self.progress = 0.0  # when the peer last took something
        self.sent = 0
        self.received = 0
        self.forwarded = 0
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        self.is_limited = False  # by socket.maxMessage of one of the two ends
        self.limit = MAX_FRAME_BYTES - FRAME_BYTES  # of one record
        self._lock = lock
        self._on_records = on_records
        self._on_closed = on_closed
        self.ended = False  # for good; written under the state lock
        self._writing = 0  # the thread that has the right to write, 0 for none
        self._rest: list[Part] = []  # what the kernel did not take yet, owned by the writing one
        self._sent_now: list[int] = []  # bytes of it that the kernel has taken, not left off yet
        self._in_write = False  # whoever has the right to write is using it
        self._claimed: Session | None = None  # the connection for which the frame was taken
        self._dead: Session | None = None  # read to its end, its socket not closed yet
        self._asleep = True  # the writer waits without a limit
        self._prompted = False  # _wakeup is released and not yet consumed
        self._urgent = False  # what waits is to be written now, not when it has lingered
        self._deferred_at = 0.0  # when the first of what waits was put by a listener, 0.0 for nothing
        self._last_write = 0.0
        self._received_then = -1  # what had been received when a frame was taken last
        self._waiters: list[Any] = []
        self._wakeup = allocate_lock()
        self._wakeup.acquire()
        self.turn = Turn()
        # What the peer is told where this end cannot read on, given the reason. Set before ``attach``.
        self.last_words: Callable[[str], Record] | None = None
        self._closed = Latch()
        self._closed.set()
        self._sessions: queue.SimpleQueue[Session | None] = queue.SimpleQueue()
        try:
            self._reader = start_thread(f"reader-{name}", self._read_loop)
            self._writer = start_thread(f"writer-{name}", self._write_loop)
        except BaseException:  # no thread, or a signal handler: what runs already ends by itself
            with lock:
                self.end()
            raise

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open" if self.session else "unconnected"
        return f"<Link to {self.title} {state}, {len(self.outbox)} queued>"

    @property
    def title(self) -> str:
        """The peer as texts for people name it: ``child resize (4718)``, ``client 127.0.0.1:40718``."""
        if self.given_name:
            return child_title(self.given_name, self.name)
        return self.name if self.role in ("", self.name) else f"{self.role} {self.name}"

    def count_waiting(self, before: int) -> int:
        """State lock not held: events of users that were given to this link since it had sent ``before``."""
        with self._lock:
            return self.sent - before + self.outbox.count_messages()

    # Sending. All of this is called with the state lock held.

    def drop(self, cause: str, count: int = 1) -> None:
        """Count events that are lost on this link."""
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def tell(self, record: Record) -> None:
        """Put a control record, and have it written soon."""
        self.outbox.put(record, CONTROL_BYTES)
        self.prompt()

    def claim(self, links: int = 1, *, prompts: bool = True) -> list[Record] | None:
        """The right to write a frame at once, and the frame, for a link that is idle; else, if ``prompts``,
        the writer is woken.

        Idle is a link that wrote nothing for a moment, or whose peer has said something since: the next
        word in a conversation does not wait for the writer. The moment is as long as one turn over all
        ``links`` of the same fan-out takes.

        Whoever gets records calls ``write_now`` with them after releasing the lock.
        """
        session = self.session
        if session is None or session.failed or self._writing:
            return None
        if self.received == self._received_then and monotonic() - self._last_write < links * QUIET_SECONDS:
            if prompts:
                self.prompt()
            return None
        return self._take_out() or None

    def claim_now(self) -> list[Record] | None:
        """As ``claim``, for the end of a batch: writes even if the link was busy just now."""
        session = self.session
        if self._writing or session is None or session.failed:
            return None
        return self._take_out() or None

    def prompt(self) -> None:
        """Make the writer write what waits."""
        self._urgent = self.attended = True
        if not self._prompted:
            self._prompted = True
            self._wakeup.release()

    def defer(self) -> None:
        """A listener put a record: who runs it writes when he is done, the writer if that takes long."""
        if not self._deferred_at:
            self._deferred_at = monotonic()
        if self._asleep and not self._prompted:
            self._prompted = True
            self._wakeup.release()

    def wait_room(self, timeout: float) -> None:
        """Give the state lock up until something was taken out, at most ``timeout`` seconds."""
        waiter = Latch()  # where a signal handler may raise; here, between release and acquire, it may not
        self._waiters.append(waiter)
        self._lock.release()
        try:
            waiter.wait(timeout)
        finally:
            self._lock.acquire()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _take_out(self) -> list[Record]:
        """The next frame with the right to write it; both only if anything waits.

        The right comes first: where a signal handler raises in here, ``give_back`` finds it.
        """
        ident = get_ident()
        self._claimed = self.session
        self._writing = ident
        records = self.outbox.take()
        if not records:
            self._writing = 0
            return records
        self.attended = True
        self._received_then = self.received
        self._deferred_at = 0.0
        if self._waiters:
            self.wake_waiters()
        return records

    def wake_waiters(self) -> None:
        for waiter in self._waiters:
            waiter.set()
        self._waiters.clear()

    # Sending, without the lock.

    def write_now(self, records: list[Record]) -> None:
        """Write a claimed frame as far as the kernel takes it at once; the writer does the rest.

        What a signal handler of the user raises in the middle goes out of here. Then the caller still has the
        right to write; ``give_back`` ends that, and nothing is lost.
        """
        outbox = self.outbox
        if self._writing <= 0 or outbox.taken is not records:
            return  # a signal handler came before, and what it raised has given it back
        self._in_write = True
        lock = self._lock
        try:
            session: Any = self._claimed
            try:
                parts = wire_parts(records)
                count = 0
                for record in records:
                    if record[0] <= SEND_TO:
                        count += len(record[PAYLOADS])
                self.sent += count  # as in _encode
                self._rest = parts
                outbox.taken = _NOTHING
                if send_parts(session.socket, parts, AT_ONCE, self._sent_now):
                    self._rest, self._sent_now = _NOTHING, []
                self._last_write = self.progress = monotonic()
            except OSError as exc:
                if exc.errno is None:
                    raise  # not the system's: a handler's TimeoutError, say
                self._write_failed(session, exc)
                self._rest = _NOTHING
            except Exception:  # no memory for the frame, or a fault of the library: the writer tries again
                if get_ident() == main_ident():
                    raise  # or of a signal handler
            lock.acquire()
            if (
                self._rest
                or outbox.count
                or outbox.taken
                or self._dead is not None
                or self._waiters
                or self.ended
            ):
                self._leave_to_writer()
            else:  # as _release_writing
                self.attended = self._prompted and self._urgent
                outbox.being_written = 0
                self._in_write = False
                self._writing = 0
            lock.release()  # whoever has the frame written runs what was deferred meanwhile
        except BaseException:
            let_go(lock)
            if self._writing == get_ident():
                self._in_write = False
            raise

    def give_back(self) -> None:
        """The calling thread breaks off what it was doing: it does not write, and leaves nothing unwritten.

        Only for the claims of code that is over. A ``write_now`` that goes on, which a signal handler has
        interrupted to come here, is left alone. Lock not held.
        """
        lock = self._lock
        try:
            lock.acquire()
            if self._writing == get_ident() and not self._in_write:
                self._leave_to_writer()
            elif self.outbox.count and not self.attended:
                self.prompt()
            lock.release()
        except BaseException:  # of a signal handler
            let_go(lock)
            raise

    def _leave_to_writer(self) -> None:
        """Lock held: give the right to write back; the writer goes on with what is left, and after it.

        May be called again where a signal handler has interrupted it.
        """
        self._note_sent()
        if self.ended:  # there may be no writer any more
            self._forget_frame()
        if self._rest or self.outbox.taken:
            self.prompt()
            self._in_write = False
            self._writing = _THE_WRITER
            return
        if self.outbox.count:
            self.prompt()
        self._release_writing()

    def _note_sent(self) -> None:
        """Right to write: leave off what the kernel has taken."""
        if self._sent_now:
            rest = remaining(self._rest, self._sent_now[0])
            self._rest, self._sent_now = rest, []

    def _break(self, session: Session) -> None:
        """End a connection whose stream cannot go on; the reader closes it."""
        session.failed = True
        shut_down(session.socket, socket.SHUT_RDWR)

    def _encode(self) -> None:
        """Right to write: the frame that was taken becomes what is to be written, and is counted."""
        records = self.outbox.taken
        parts = wire_parts(records)
        count = count_messages(records)
        self.sent += count  # no call from here on: all of it is done, or nothing
        self._rest = parts
        self.outbox.taken = _NOTHING

    def _forget_frame(self) -> None:
        """Right to write: what is left of a frame is lost with the connection that it was taken for."""
        count = count_messages(self.outbox.taken)
        self.sent += count
        self.drop("link-cut", count)
        self._rest, self._sent_now = _NOTHING, []
        self.outbox.taken = _NOTHING

    def _release_writing(self) -> None:
        """Lock held: give the right to write back; the last user of a dead session closes its socket."""
        self.attended = self._prompted and self._urgent
        self.outbox.being_written = 0
        self._in_write = False
        self._writing = 0
        if self._dead is not None:
            self._close_dead()
        if self._waiters and not self.outbox.count:
            self.wake_waiters()

    def _write_failed(self, session: Session, exc: OSError) -> None:
        """The peer reads no more. What it wrote before is still read; our reader closes the session."""
        if not session.failed and exc.errno not in (
            errno.EPIPE,
            errno.ECONNRESET,
            errno.ESHUTDOWN,
            errno.EBADF,
        ):
            log.warning("! writing to %s failed, and the connection ends: %s", self.title, exc)
        session.failed = True
        shut_down(session.socket, socket.SHUT_WR)

    def _write_loop(self) -> None:
        wait: float | None = None
        quiet = 0
        while True:
            got = self._wakeup.acquire(timeout=-1 if wait is None else wait)
            with self._lock:
                if self._prompted and not got:
                    self._wakeup.acquire()  # released between our time-out and now
                self._prompted = False
                self._asleep = False
                mine = self._writing == _THE_WRITER
                if self.ended:
                    if mine:
                        self._forget_frame()
                        self._release_writing()
                    self._close_dead()
                    return
                urgent, self._urgent = self._urgent, False
                session = self.session
                records = None
                waits = bool(self.outbox.count) and session is not None and not session.failed
                left = LINGER_SECONDS
                if waits and not mine and not self._writing:
                    left = self._deferred_at + LINGER_SECONDS - monotonic()
                    if urgent or left <= 0.0:
                        records = self._take_out()
                        left = LINGER_SECONDS
                self._in_write = self._in_write or mine or bool(records)
                self.attended = bool(self._writing)
                quiet = 0 if got or mine or waits else quiet + 1
                wait = left if quiet < LINGER_ROUNDS else None
                self._asleep = wait is None
            if mine or records:
                self._write_all(session)

    def _write_all(self, session: Session | None) -> None:
        """Write until the outbox is empty; owns the right to write."""
        while True:
            if session is not None and session is self._claimed and not session.failed:
                try:
                    if self.outbox.taken:
                        self._encode()
                    while self._rest:
                        send_parts(session.socket, self._rest, WAITING, self._sent_now)
                        self._note_sent()
                        self.progress = self._last_write = monotonic()
                except OSError as exc:
                    self._write_failed(session, exc)
                except Exception:  # no memory for the frame, or a fault of the library
                    log.exception("! writing to %s failed, and the connection ends", self.title)
                    self._break(session)
            with self._lock:
                if self._rest or self.outbox.taken:
                    self._forget_frame()
                session = self.session
                if session is None or session.failed or not self.outbox.count or self.ended:
                    self._release_writing()
                    return
                self._take_out()

    # Connections

    def attach(self, session: Session) -> None:
        """State lock held: serve this connection from now on; what waits in the outbox is written."""
        assert self.session is None
        closed, now = Latch(), monotonic()
        # Nothing is called from here on that a signal handler could interrupt before the reader has it.
        self.session = session
        self._closed = closed
        if session.max_message is not None:
            self.limit = session.max_message
        self.is_limited = session.max_message is not None
        self.progress = now
        self._sessions.put(session)
        if self.outbox.count:
            self.prompt()

    def flush(self, deadline: Deadline) -> bool:
        """State lock held, given up meanwhile: wait until the kernel has everything.

        Returns whether it has.
        """
        while self.session is not None and not self.session.failed and (self.outbox.count or self._writing):
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

    def is_written_by(self, ident: int) -> bool:
        """Whether this thread holds the right to write: it is in the middle of it."""
        return self._writing == ident

    def is_read_by(self, ident: int) -> bool:
        """Whether this thread is the reader."""
        return self._reader.ident == ident

    def abandon(self) -> None:
        """In a forked child, where the threads do not exist: give the descriptor back, touch nothing else."""
        session = self.session
        if session is not None:
            session.socket.close()

    def _close_dead(self) -> None:
        """Lock held: close the socket of a session that nobody reads or writes any more."""
        dead = self._dead
        if dead is not None and not self._writing:
            self._dead = None
            dead.socket.close()

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
                self.session = None
                self._dead = session
                self.wake_waiters()
                self._close_dead()
                closed = self._closed
                ended = self.ended
            try:
                if not ended:  # else whoever ended it knows, and there may be another life by now
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
