"""One thread over all children and the parent: waits, restarts, stops.

It waits on process descriptors: sentinels and ends of files are blind once user code forks (a Pool in
a worker inherits them), a pidfd is not. Present in every process, also without children, because a
child has to notice the end of its parent.

Locks. Fields of a Slot are guarded by the state lock, unless only the supervisor's thread uses them.
The thread blocks in ``poll`` (ended by ``_wakeup``), in starting a process (milliseconds), in the
steps of a stop (each under its deadline). It never runs a listener and never waits for one.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from .._core.handshake import Identity, Refusal
from .._core.messages import FAILED, FINISHED, ONLINE, PROGRAM, STOP, Record
from .._core.restarts import GiveUp, Restart, RestartPolicy
from .._exceptions import GaveUp, IPEventsError, ProtocolError, StartFailed, WorkerRefused
from . import again, payload
from .acceptor import Acceptor, listen
from .again import AGAIN_SECONDS, Again
from .keys import PrivateDirectory, derive
from .link import Link
from .logs import Log
from .node import Node
from .process import ChildProcess, Launch, open_pidfd
from .programs import Program
from .session import Session
from .socketfile import SocketFile
from .stage import Stage
from .threads import Deadline, Latch, Wakeup, join_thread, start_thread

log = Log("ipevents.supervisor")

SILENT_SECONDS = 10.0  # what waits for an online is named after this (DESIGN section 3)
LEAVING_SECONDS = 2.0  # a child whose link is closed has so long to end before it is told with TERM
ADMITTED_SECONDS = 1.0  # from a child's handshake to its link
STEP = 0.05  # of a stop's time is kept for each level of the tree,
LEAST_STEP_SECONDS = 0.2  # but at least so much
INTERRUPT_SECONDS = 0.1  # a signal may be swallowed (by a finalizer, say), so it is sent until it has worked
ORPHAN_SECONDS = 0.6  # all that a child has when its parent is gone


class Slot:
    """What is known of one child over all its restarts."""

    def __init__(
        self,
        name: str,
        program: Program,
        is_worker: bool,
        policy: RestartPolicy,
        explicit: bool,
        start_method: str,
    ) -> None:
        self.name = name
        self.is_worker = is_worker
        self.policy = policy
        self.explicit = explicit
        self.start_method = start_method
        self.program, self.program_size = payload.encode(tuple(program), {})
        self.link: Link | None = None
        self.process: ChildProcess | None = None
        self.pid = ""
        self.starts = 0
        self.exitcode: int | None = None
        self.wanted = False  # stop() or kill() was called: its end is final
        self.ended = Latch()  # the final end
        self.begin()

    def begin(self) -> None:
        """Everything that concerns one start only."""
        self.key = os.urandom(8)
        self.token = os.urandom(32)
        self.sent_before = 0  # events on its link until this start
        self.admitted_at: float | None = None
        self.attached = False
        self.early: Connection | None = None  # a connection that came before the start had returned
        self.online = False
        self.link_read = False
        self.exited_at: float | None = None
        self.finished = False
        self.refused = False
        self.failure = ""
        self.restart_at: float | None = None
        self.warn_at: float | None = None
        self.term_at: float | None = None
        self.kill_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.exited_at is None

    def times(self) -> list[float | None]:
        """When something is to be done for it: only what can still be done, or the thread would spin."""
        if self.process is None:
            return [self.restart_at]
        if self.exited_at is None:
            return [self.warn_at, self.term_at, self.kill_at]
        return [self._admission_ends()]

    def _admission_ends(self) -> float | None:
        if self.exited_at is None or self.admitted_at is None or self.attached:
            return None
        return self.admitted_at + ADMITTED_SECONDS

    def is_read(self, now: float) -> bool:
        """Whether nothing can come from this start any more."""
        if self.attached:
            return self.link_read
        ends = self._admission_ends()
        return ends is None or now >= ends


class Supervisor:
    """Owner of the children. ``on_stop(deadline)`` and ``on_stopped(deadline)`` are called in its thread,
    before the children are told to stop and after they and the main thread's program ended (``is_done()``,
    asked whenever something happens; else the deadline has passed). Meanwhile ``interrupt()`` is called
    every now and then; it tells whether that is still needed. ``on_empty()`` when a child has ended for good.
    """

    def __init__(
        self,
        node: Node,
        *,
        depth: int,
        incarnation: int,
        on_stop: Callable[[Deadline], None],
        on_stopped: Callable[[Deadline], None],
        on_orphaned: Callable[[], None],
        on_empty: Callable[[], None],
        is_done: Callable[[], bool],
        interrupt: Callable[[], bool],
    ) -> None:
        self._node = node
        self._depth = depth
        self._incarnation = incarnation
        self._on_stop = on_stop
        self._on_stopped = on_stopped
        self._on_orphaned = on_orphaned
        self._on_empty = on_empty
        self._is_done = is_done
        self._interrupt = interrupt
        self.slots: list[Slot] = []  # not ended ones; guarded by the state lock
        self.retired: list[Link] = []  # links of ended ones whose threads may still be about to end
        self.restarts = 0
        self._by_key: dict[bytes, Slot] = {}
        self._wakeup = Wakeup()
        self._poll = select.poll()
        self._poll.register(self._wakeup.fileno(), select.POLLIN)
        self._watched: dict[int, Slot] = {}  # the thread's own
        self._starting = threading.Lock()  # guards the making of directory and acceptor
        self._directory: PrivateDirectory | None = None
        self._acceptor: Acceptor | None = None
        self._address = ""
        self._deadline: Deadline | None = None  # of the stop that was asked for
        self._parent_fd: int | None = None
        self._again = Again(self._wakeup.ring)
        self._interrupt_at = 0.0  # the thread's own
        self._warn_held_at: float | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread."""
        self._thread = start_thread(f"supervisor-{self._node.router.pid}", self._run)

    def watch_parent(self, pid: int) -> bool:
        """Before ``begin``: notice the end of this process. Returns False if it has ended already."""
        try:
            self._parent_fd = open_pidfd(pid)
        except ProcessLookupError:
            return False
        if self._parent_fd is not None:
            self._poll.register(self._parent_fd, select.POLLIN)
        self._warn_held_at = time.monotonic() + SILENT_SECONDS
        return True

    def parent_is_gone(self, seconds: float) -> bool:
        """Whether the process that ``watch_parent`` was told of ends within that time.

        A dying process closes its sockets first: others may see their end before it has ended itself.
        """
        if self._parent_fd is None:
            return False
        poll = select.poll()
        poll.register(self._parent_fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # Children

    def add(self, slot: Slot) -> None:
        """Start a child for the first time, in the calling thread. Raises OSError where that is refused."""
        self._prepare()
        link = Link(slot.name, self._node.lock, self._node.receive, self._link_closed)
        slot.link = link
        with self._node.lock:
            if self._node.stage is not Stage.OPEN:
                link.end()
                raise self._node.stage_error()
            self.slots.append(slot)
        try:
            self._start(slot)
        except BaseException:
            with self._node.lock:
                self.slots.remove(slot)
                self._by_key.pop(slot.key, None)
                link.end()
            self._wakeup.ring()
            raise
        self._wakeup.ring()

    def _prepare(self) -> None:
        with self._starting:
            if self._acceptor is not None:
                return
            directory = PrivateDirectory.make()
            try:
                address = os.path.join(directory.path, "children")
                listener = listen(address, "AF_UNIX")
                self._acceptor = Acceptor(
                    listener,
                    socket_file=SocketFile.at(address),
                    name="children",
                    me=self._identity,
                    find_key=self._find_key,
                    admit=self._admit,
                    on_accepted=self._accepted,
                    on_refused=self._refused,
                )
            except BaseException:
                directory.close()
                raise
            self._directory = directory
            self._address = address

    def _start(self, slot: Slot) -> None:
        """One start of a child; in ``add`` or in the supervisor's thread."""
        slot.begin()
        link = slot.link
        assert link is not None
        now = time.monotonic()
        with self._node.lock:
            self._by_key[slot.key] = slot
            link.outbox.clear()
            slot.sent_before = link.sent
            link.outbox.put((PROGRAM, (), "", None, [slot.program]), slot.program_size)
            slot.policy.started(now)
        launch = Launch(
            self._address,
            slot.key,
            slot.token,
            os.getpid(),
            self._depth + 1,
            slot.is_worker,
            slot.start_method,
        )
        process = ChildProcess(launch, slot.name)
        with self._node.lock:
            slot.starts += 1
            slot.process = process
            slot.pid = str(process.pid)
            slot.warn_at = time.monotonic() + SILENT_SECONDS
            link.name = slot.pid
            link.progress = time.monotonic()
            self._node.router.add_child(link, slot.pid)
            if slot.early is not None:
                link.attach(Session(slot.early, None))
                slot.early = None
            stopping = self._node.stage is not Stage.OPEN
            if stopping or slot.wanted:
                slot.kill_at = time.monotonic()
        log.debug("= child %s started as %s", slot.name, slot.pid)

    # The private socket: in the acceptor's thread

    def _identity(self) -> Identity:
        import sys

        return Identity(self._node.router.pid, self._incarnation, sys.version_info[:2], 0)

    def _find_key(self, key: bytes) -> bytes | None:
        with self._node.lock:
            slot = self._by_key.get(key)
            return None if slot is None or slot.admitted_at is not None else derive(slot.token, b"child")

    def _admit(self, identity: Identity, key: bytes, address: str) -> str | Refusal:
        with self._node.lock:
            slot = self._by_key.get(key)
            if slot is None or slot.admitted_at is not None:
                return Refusal("unknown", "no child is expected under this token")
            slot.admitted_at = time.monotonic()
        return identity.pid

    def _accepted(self, connection: Connection, identity: Identity, pid: str, key: bytes) -> None:
        self._node.after_offlines(lambda: self._attach(connection, key))

    def _attach(self, connection: Connection, key: bytes) -> None:
        with self._node.lock:
            slot = self._by_key.get(key)
            link = None if slot is None else slot.link
            if slot is None or link is None or slot.attached or link.session is not None:
                connection.close()
                return
            slot.attached = True
            if slot.process is None:  # faster than the thread that starts it: it attaches the link
                slot.early = connection
            else:
                link.attach(Session(connection, None))
        self._wakeup.ring()

    def _refused(self, cause: str, address: str) -> None:
        self._node.incoming.count_refused(cause)

    # What children say: in their links' readers

    def control(self, link: Link, record: Record) -> None:
        """ONLINE, FAILED and FINISHED of a child of ours."""
        slot = self._slot_of(link)
        if slot is None:
            return
        kind = record[0]
        with self._node.lock:
            if kind == ONLINE:
                slot.online = slot.online or len(record[1]) == 1
                slot.warn_at = None if slot.online else slot.warn_at
            elif kind == FAILED:
                _, text, refused = record
                slot.failure, slot.refused = str(text), bool(refused)
            elif kind == FINISHED:
                slot.finished = True

    def _slot_of(self, link: Link) -> Slot | None:
        with self._node.lock:
            return next((slot for slot in self.slots if slot.link is link), None)

    def _link_closed(self, link: Link, error: Exception | None) -> None:
        slot = self._slot_of(link)
        if isinstance(error, ProtocolError):
            self._node.error(error)
        if slot is None:
            return
        with self._node.lock:
            slot.link_read = True
            if slot.exited_at is None and slot.term_at is None:
                now = time.monotonic()
                slot.term_at = now + LEAVING_SECONDS
                slot.kill_at = slot.term_at + LEAVING_SECONDS
        self._wakeup.ring()

    # Wishes, from any thread

    def stop_child(self, slot: Slot, seconds: float) -> None:
        """Ask one child to end within ``seconds``, then make it; no restart."""
        with self._node.lock:
            slot.wanted = True
            self._tell_stop(slot, Deadline(seconds))
        self._wakeup.ring()

    def kill_child(self, slot: Slot) -> None:
        """End one child at once; no restart."""
        with self._node.lock:
            slot.wanted = True
            slot.kill_at = time.monotonic()
            if slot.restart_at is not None:
                slot.restart_at = slot.kill_at
        self._wakeup.ring()

    def request_stop(self, seconds: float) -> None:
        """Stop everything within ``seconds``. Takes no lock: a signal handler may call it."""
        if self._deadline is None:
            self._deadline = Deadline(seconds)
        else:  # whoever asked with less patience counts, such as a parent that is gone
            self._deadline.shorten(seconds)
        self._wakeup.ring()

    def resend(self, number: int) -> None:
        """Send the main thread this signal again in a moment. Takes no lock."""
        self._again.put(number)

    def kill_all(self) -> None:
        """KILL all children now; this thread ends the process next. Takes no lock, for a signal handler."""
        for slot in list(self.slots):
            process = slot.process
            if process is not None and slot.exited_at is None:
                process.send_signal(signal.SIGKILL)
        if self._directory is not None:
            self._directory.close()

    def join(self, deadline: Deadline) -> bool:
        return join_thread(self._thread, deadline)

    def runs_here(self) -> bool:
        return threading.current_thread() is self._thread

    def abandon(self) -> None:
        """In a forked child: give our descriptors back, leave everything else alone."""
        for slot in self.slots:
            if slot.link is not None:
                slot.link.abandon()
            if slot.process is not None:
                slot.process.abandon()
        if self._acceptor is not None:
            self._acceptor.abandon()
        if self._directory is not None:
            self._directory.abandon()
        self._wakeup.abandon()
        if self._parent_fd is not None:
            os.close(self._parent_fd)

    # The thread

    def _run(self) -> None:
        try:
            while self._deadline is None:
                self._step(None)
            self._stop(self._deadline)
        except Exception:  # a fault of the library: without this thread nothing is watched any more
            log.exception("! the supervisor ends")
            self.kill_all()
            self._on_stopped(Deadline(1.0))
        finally:
            self._close()

    def _step(self, until: float | None) -> None:
        """Wait for whatever comes first, and handle it; at most until the given time."""
        with self._node.lock:
            times = [at for slot in self.slots for at in slot.times() if at is not None]
            new = [s for s in self.slots if s.process is not None and s.exited_at is None]
        look_at = self._again.next_look(time.monotonic())
        times += [at for at in (until, look_at, self._warn_held_at) if at is not None]
        for slot in new:
            assert slot.process is not None
            descriptor = slot.process.fileno()
            if self._watched.get(descriptor) is not slot:
                self._watched[descriptor] = slot
                self._poll.register(descriptor, select.POLLIN)
        wait = None if not times else max(0.0, min(times) - time.monotonic()) * 1000 + 0.5
        ready = self._poll.poll(wait)
        self._wakeup.clear()
        for descriptor, _ in ready:
            if descriptor == self._parent_fd:
                self._poll.unregister(descriptor)
                self._on_orphaned()
            elif descriptor in self._watched:
                self._poll.unregister(descriptor)
                self._exited(self._watched.pop(descriptor))
        now = time.monotonic()
        for number in self._again.take(now):
            again.send(number)
        self._warn_held(now)
        for slot in self._all():
            self._due(slot, now)

    def _all(self) -> list[Slot]:
        with self._node.lock:
            return list(self.slots)

    def _warn_held(self, now: float) -> None:
        if self._warn_held_at is not None and self._warn_held_at <= now:
            self._warn_held_at = None
            if self._node.incoming.held_count:
                log.warning(
                    "! %d events wait for this process to say online: call ipem.start() when its listeners "
                    "are registered",
                    self._node.incoming.held_count,
                )

    def _exited(self, slot: Slot) -> None:
        process, link = slot.process, slot.link
        assert process is not None
        assert link is not None
        code = process.reap()
        with self._node.lock:
            slot.exited_at = time.monotonic()
            slot.exitcode = code
            slot.term_at = slot.kill_at = slot.warn_at = None
        log.debug("= child %s ended with %s", slot.pid, code)
        link.close_session()  # what it wrote is read first, also where a forked helper keeps its end open

    def _due(self, slot: Slot, now: float) -> None:
        """Whatever the clock or the link asks for in one slot."""
        if slot.exited_at is not None and slot.process is not None:
            # A listener that never returns keeps the link from being read: a stop does not wait for it.
            overdue = self._deadline is not None and self._deadline.passed()
            if overdue or slot.is_read(now):
                self._finish(slot, now)
        if slot.restart_at is not None and slot.restart_at <= now:
            slot.restart_at = None
            self._restart(slot)
        process = slot.process
        if process is None or slot.exited_at is not None:
            return
        if slot.warn_at is not None and slot.warn_at <= now:
            slot.warn_at = None
            self._warn(slot)
        if slot.term_at is not None and slot.term_at <= now:
            slot.term_at = None
            log.debug("= TERM to child %s", slot.pid)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        if slot.kill_at is not None and slot.kill_at <= now:
            slot.kill_at = None
            log.debug("= KILL to child %s", slot.pid)
            process.send_signal(signal.SIGKILL)

    def _warn(self, slot: Slot) -> None:
        link = slot.link
        assert link is not None
        waiting = link.sent - slot.sent_before + link.outbox.count
        if waiting > 0:
            log.warning("! %d events for child %s wait: it has not said online yet", waiting, slot.pid)

    def _finish(self, slot: Slot, now: float) -> None:
        """A child has ended and its link is read to the end: tell it, and decide what follows."""
        link, process = slot.link, slot.process
        assert link is not None
        assert process is not None
        assert slot.exited_at is not None
        errors: list[IPEventsError] = []
        with self._node.lock:
            pid, code = slot.pid, slot.exitcode
            stopping = self._deadline is not None
            self._by_key.pop(slot.key, None)
            online, notices = self._node.child_gone(link, code)
            if not online:  # what it was sent waited there for its online
                link.drop("link-cut", link.sent - slot.sent_before)
            decision = slot.policy.exited(
                slot.exited_at,
                code,
                finished=slot.finished,
                wanted=slot.wanted or stopping,
                refused=slot.refused,
                explicit=slot.explicit,
            )
            slot.process = None
            if not online and not slot.wanted and not stopping:
                errors.append(StartFailed(pid, code, slot.failure))
            elif slot.refused:
                errors.append(
                    WorkerRefused(f"child {pid} was refused and is not started again\n{slot.failure}")
                )
            if isinstance(decision, GiveUp):
                errors.append(
                    GaveUp(f"child {slot.name} ({pid}) died young {decision.deaths} times in a row")
                )
            if isinstance(decision, Restart):
                slot.restart_at = slot.exited_at + decision.after
            self._node.tell_offlines(notices)
        process.close()
        for error in errors:
            self._node.error(error)
        if slot.restart_at is None:
            self._end(slot)

    def _end(self, slot: Slot) -> None:
        """This child will not be started again."""
        with self._node.lock:
            if slot in self.slots:
                self.slots.remove(slot)
            assert slot.link is not None
            slot.link.end()
            self._node.remember(slot.link)
            self.retired = [link for link in self.retired if link.is_alive()]
            self.retired.append(slot.link)
        slot.ended.set()
        self._on_empty()

    def _restart(self, slot: Slot) -> None:
        if slot.wanted or self._deadline is not None:
            self._end(slot)
            return
        try:
            self._start(slot)
        except Exception as exc:  # the system, or a forkserver that is gone, refuses in many ways
            now = time.monotonic()
            with self._node.lock:
                self._by_key.pop(slot.key, None)
                decision = slot.policy.exited(
                    now, None, finished=False, wanted=slot.wanted, refused=False, explicit=slot.explicit
                )
                if isinstance(decision, Restart):
                    slot.restart_at = now + decision.after
            self._node.error(StartFailed(slot.pid, None, why=f"it could not be started again: {exc}"))
            if slot.restart_at is None:
                self._end(slot)
            return
        self.restarts += 1

    # Stopping

    def _tell_stop(self, slot: Slot, deadline: Deadline) -> None:
        """State lock held: ask a child to stop; TERM and KILL follow if it does not."""
        left = deadline.left()
        assert left is not None
        assert slot.link is not None
        if not slot.alive:
            slot.restart_at = time.monotonic() if slot.restart_at is not None else None
            return
        step = min(max(STEP * left, LEAST_STEP_SECONDS), left / 2)
        slot.link.tell((STOP, int((left - step) * 1000)))
        now = time.monotonic()
        slot.term_at = now + left - step / 2
        slot.kill_at = now + left if slot.kill_at is None else min(slot.kill_at, now + left)

    def _stop(self, deadline: Deadline) -> None:
        """End everything below, then the rest, within the deadline."""
        self._on_stop(deadline)
        with self._node.lock:
            for slot in self.slots:
                self._tell_stop(slot, deadline)
        # Also without children: until the main thread has left its program.
        while self._all() or not (self._is_done() or deadline.passed()):
            until = None if deadline.passed() else deadline.at
            now = time.monotonic()
            if now >= self._interrupt_at and self._interrupt():
                self._interrupt_at = now + INTERRUPT_SECONDS
            if now < self._interrupt_at:
                until = self._interrupt_at if until is None else min(until, self._interrupt_at)
            self._step(until)
            self._hurry(deadline)
        if self._acceptor is not None:
            self._acceptor.close()
        if self._directory is not None:  # before anybody is told that it is all over, and may end the process
            self._directory.close()
        self._on_stopped(deadline)

    def _hurry(self, deadline: Deadline) -> None:
        """Tell the children again where the deadline has been shortened meanwhile."""
        assert deadline.at is not None
        with self._node.lock:
            for slot in self.slots:
                if slot.kill_at is not None and slot.kill_at > deadline.at + AGAIN_SECONDS:
                    self._tell_stop(slot, deadline)

    def _close(self) -> None:
        if self._directory is not None:
            self._directory.close()
        if self._parent_fd is not None:
            os.close(self._parent_fd)
        self._wakeup.close()
