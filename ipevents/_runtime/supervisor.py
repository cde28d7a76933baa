"""One thread over all children and the parent: waits, restarts, stops.

Present in every process, also without children, because a child has to notice the end of its parent.

Locks. ``slots`` and the fields of a Slot are guarded by the state lock. The thread blocks in ``watch``
(ended by its ring), in starting a process (milliseconds), in the steps of a stop (each under its deadline).
It never runs a listener and never waits for one.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core.messages import Record
from .._core.naming import failure
from .._core.restarts import Restart
from .._core.state import Stage
from .._exceptions import LinkError, StartFailed, Unpicklable
from . import again
from .again import AGAIN_SECONDS, Again
from .clock import monotonic
from .guards import patient
from .inheritance import Inheritance
from .link import Link
from .logs import Log
from .node import Node
from .privatesocket import PrivateSocket
from .process import ChildProcess, Launch
from .session import Session
from .slot import Slot
from .threads import Deadline, join_thread, start_thread
from .watch import Watch

if TYPE_CHECKING:
    from .childhood import Childhood

log = Log("ipevents.supervisor")

SILENT_SECONDS = 10.0  # what waits for an online is named after this (DESIGN section 3)
GIVE_BACK_SECONDS = 1.0  # for threads that wait for nothing


class Supervisor:
    """Owner of the children. Callbacks, in its thread: ``on_stop()``, which does not block, before children
    are told to stop; ``on_stopped(deadline)`` when they have ended and ``childhood``, None in a top process,
    has ended its program (see its ``hurry``), or the deadline has passed; ``on_empty()`` when a child has
    ended for good; ``on_fault(exc)`` when this thread has failed too often in a row and ends everything.
    """

    def __init__(
        self,
        node: Node,
        *,
        depth: int,
        incarnation: int,
        on_stop: Callable[[], None],
        on_stopped: Callable[[Deadline], None],
        on_empty: Callable[[], None],
        on_fault: Callable[[BaseException], None] = lambda exc: None,
        childhood: Childhood | None,
    ) -> None:
        self._node = node
        self._depth = depth
        self._on_stop = on_stop
        self._on_stopped = on_stopped
        self._on_empty = on_empty
        self._on_fault = on_fault
        self._faults = 0  # in a row
        self._ended: list[Slot] = []  # their processes have, what follows is still to be done
        self._childhood = childhood
        self.slots: list[Slot] = []  # not ended ones; guarded by the state lock
        self.restarts = 0
        self._deadline: Deadline | None = None  # of the stop that was asked for
        self._warn_held_at: float | None = None
        self._thread: threading.Thread | None = None
        self._is_discarded = False
        self._unclaimed = [self]  # taken by the thread when it begins, or by discard() before that
        self.watch = Watch()
        try:
            self._socket = PrivateSocket(node, incarnation=incarnation, on_attached=self.watch.ring)
            self._again = Again(self.watch.ring)
        except BaseException:  # of a signal handler
            self.watch.close()
            raise

    def begin(self) -> None:
        """Start the thread."""
        if self._node.incoming.holding:
            self._warn_held_at = monotonic() + SILENT_SECONDS
        self._thread = start_thread(f"supervisor-{self._node.router.pid}", self._run)

    # Children

    def add(self, slot: Slot) -> None:
        """Start a child for the first time, in the calling thread. Raises OSError where that is refused."""
        node = self._node
        self._socket.open()
        outer = node.inside()
        link = Link(slot.name, node.lock, node.receive, self._link_closed)
        try:
            link.role, link.given_name, link.child = "child", slot.name, slot.child
            slot.link = link
            with node.lock:
                if node.stage is not Stage.OPEN:  # a stop was faster; it does not know of this link
                    raise node.stage_error()
                self.slots.append(slot)
            self._start(slot)
        except BaseException:  # the stop, the system refuses, or Ctrl-C: there is no such child
            node.let_go(outer)
            if slot.process is None:
                with node.lock:
                    if slot in self.slots:
                        self.slots.remove(slot)
                    self._socket.forget(slot)
                self._give_back(link)
            else:  # a signal handler, when it ran already: nobody gets a handle of it
                self.kill_child(slot)
            self.watch.ring()
            raise
        self.watch.ring()

    def _give_back(self, link: Link) -> None:
        """End the link of a child that has not come to be, with its threads."""
        with self._node.lock:
            link.end()
        link.join(Deadline(GIVE_BACK_SECONDS))

    def _start(self, slot: Slot) -> None:
        """One start of a child; in ``add`` or in the supervisor's thread."""
        slot.begin()
        link = slot.link
        assert link is not None
        now = monotonic()
        with self._node.lock:
            self._socket.expect(slot)
            link.outbox = slot.next_outbox()  # nothing that was sent to a process before
            slot.sent_before = link.sent
            slot.policy.started(now)
        secrets = (self._socket.address, slot.key, slot.token)
        launch = Launch(
            *secrets, os.getpid(), self._depth + 1, slot.is_worker, slot.start_method, slot.stop_grace
        )
        process = None
        try:
            process = ChildProcess(launch, slot.name, slot.inherited.passed(slot.start_method))
            self._started(slot, process)
        except BaseException:  # of a signal handler, where there is a process
            if process is not None and slot.process is None:
                process.discard()
            raise
        log.debug("= %s started", slot.title)

    def _started(self, slot: Slot, process: ChildProcess) -> None:
        link = slot.link
        assert link is not None
        with self._node.lock:
            slot.started(process)
            link.wake_waiters()
            self._socket.name(slot, str(process.pid))
            slot.warn_at = monotonic() + SILENT_SECONDS
            link.progress = monotonic()
            if slot.early is not None:
                link.attach(Session(slot.early, None))
                slot.early = None
                slot.connected()
            stopping = self._node.stage is not Stage.OPEN
            if stopping or slot.wanted:
                slot.kill_at = monotonic()

    # What children say: in their links' readers

    def control(self, link: Link, record: Record) -> None:
        """ONLINE, FAILED, FAULT and FINISHED of a child of ours."""
        slot = self._slot_of(link)
        if slot is not None:
            with self._node.lock:
                slot.heard(record)

    def _slot_of(self, link: Link) -> Slot | None:
        with self._node.lock:
            return next((slot for slot in self.slots if slot.link is link), None)

    def _link_closed(self, link: Link, error: Exception | None) -> None:
        slot = self._slot_of(link)
        if isinstance(error, LinkError):
            self._node.error(error, child=link.child)
        if slot is None:
            return
        with self._node.lock:
            slot.leaves(monotonic())
        self.watch.ring()

    # Wishes, from any thread

    def stop_child(self, slot: Slot, seconds: float) -> None:
        """Ask one child to end within ``seconds``, then make it; no restart."""
        with self._node.lock:
            slot.wanted = True
            slot.tell_stop(Deadline(seconds))
        self.watch.ring()

    def kill_child(self, slot: Slot) -> None:
        """End one child at once; no restart."""
        with self._node.lock:
            slot.tell_kill()
        self.watch.ring()

    def request_stop(self, seconds: float) -> None:
        """Stop everything within ``seconds``. Takes no lock: a signal handler may call it."""
        try:
            if self._deadline is None:
                self._deadline = Deadline(seconds)
            else:  # whoever asked with less patience counts, such as a parent that is gone
                self._deadline.shorten(seconds)
        finally:
            self.watch.ring()

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment, without a lock. Returns False if too late."""
        return self._again.put(number)

    def kill_all(self) -> None:
        """KILL all children now; this thread ends the process next. Takes no lock, for a signal handler."""
        for slot in list(self.slots):
            process = slot.process
            if process is not None and slot.exited_at is None:
                process.send_signal(signal.SIGKILL)
        self._socket.remove()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the thread. Returns whether it has ended."""
        return join_thread(self._thread, deadline)

    def discard(self, deadline: Deadline) -> None:
        """Before anybody else knows of it: end the thread, if it was started, and give the descriptors
        back."""
        self._is_discarded = True
        self.watch.ring()
        if self._thread is not None:
            join_thread(self._thread, deadline)
        else:  # or its start was interrupted by a signal handler: then it may run all the same
            try:
                self._unclaimed.pop()
            except IndexError:  # it does, and ends by itself
                return
            self.watch.close()

    def abandon(self) -> None:
        """In a forked child: give our descriptors back, leave everything else alone."""
        for slot in self.slots:
            if slot.link is not None:
                slot.link.abandon()
            if slot.process is not None:
                slot.process.abandon()
        self._socket.abandon()
        self.watch.abandon()

    # The thread

    def _run(self) -> None:
        try:
            self._unclaimed.pop()
        except IndexError:
            return  # discarded, before it began
        try:
            while self._deadline is None:
                if self._is_discarded:
                    return
                self._try_step(None)
            self._stop(self._deadline)
        except BaseException as exc:  # a fault that lasts: without this thread nothing is watched any more
            log.exception("! the supervisor of %s ends, and kills all children", self._node.errors.place())
            self.kill_all()
            self._on_fault(exc)
            try:
                self._on_stop()
                self._give_up_children()
                self._end_again()
            finally:
                self._on_stopped(Deadline(1.0))
        finally:
            self._socket.remove()
            self.watch.close()

    def _give_up_children(self) -> None:
        """After ``kill_all``, where nothing is watched any more: reap what that ended, let nobody in."""
        self._socket.close()
        for slot in self._all():
            process = slot.process
            if process is not None:
                slot.exitcode = process.reap()
                process.close()
            slot.ended.set()

    def _try_step(self, until: float | None) -> None:
        """``_step``; a fault of the system (no memory, no descriptor) may pass, and the next one succeed."""
        try:
            self._step(until)
            self._faults = 0
        except BaseException:  # also of the library itself
            self._faults += 1
            log.exception("! a step of the supervisor failed")
            if not patient(self._faults):
                raise

    def _step(self, until: float | None) -> None:
        """Wait for whatever comes first, and handle it; at most until the given time."""
        with self._node.lock:
            times = [at for slot in self.slots for at in slot.times() if at is not None]
            alive = [slot for slot in self.slots if slot.alive]
        look_at = self._again.next_look(monotonic())
        times += [at for at in (until, look_at, self._warn_held_at) if at is not None]
        ended, parent_ended = self.watch.wait(alive, min(times) - monotonic() if times else None)
        if parent_ended and self._childhood is not None:
            self._childhood.parent_ended()
        self._ended += ended  # each end is told once
        while self._ended:
            self._exited(self._ended[0])
            del self._ended[0]
        now = monotonic()
        for number in self._again.take(now):
            again.send(number)
        self._warn_held(now)
        for slot in self._all():
            self._due(slot, now)

    def _all(self) -> list[Slot]:
        with self._node.lock:
            return list(self.slots)

    def _warn_held(self, now: float) -> None:
        if self._warn_held_at is None or now < self._warn_held_at:
            return
        self._warn_held_at = None
        count = self._node.incoming.held_count
        if count:
            log.warning(
                "! %d events wait for %s to say online: call ipem.start() there when its listeners are "
                "registered",
                count,
                self._node.errors.place(),
            )

    def _exited(self, slot: Slot) -> None:
        process, link = slot.process, slot.link
        assert process is not None
        assert link is not None
        code = process.reap()
        with self._node.lock:
            slot.exited_at = monotonic()
            slot.exitcode = code
            slot.kill_at = slot.warn_at = None
        log.debug("= %s ended with %s", slot.title, code)
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
        slot.act(now)

    def _finish(self, slot: Slot, now: float) -> None:
        """A child has ended and its link is read to the end: tell it, and decide what follows."""
        link, process = slot.link, slot.process
        assert link is not None
        assert process is not None
        assert slot.exited_at is not None
        with self._node.lock:
            code = slot.exitcode
            stopping = self._deadline is not None
            self._socket.forget(slot)
            cause = "stopped" if slot.wanted or stopping else "link-cut"
            lost = link.dropped.get(cause, 0)
            online, notices = self._node.child_gone(link, code, cause)
            if not online:  # what it was sent waited there for its online
                link.drop(cause, link.sent - slot.sent_before)
            lost = link.dropped.get(cause, 0) - lost
            decision = slot.policy.exited(
                slot.exited_at,
                code,
                finished=slot.finished,
                wanted=slot.wanted or stopping,
                refused=slot.refused,
                explicit=slot.explicit,
            )
            slot.process = None
            errors = slot.failures(online, stopping, decision)
            if isinstance(decision, Restart):
                slot.restart_at = slot.exited_at + decision.after
            self._node.tell_offlines(notices)
        process.close()
        if lost and not online and cause == "stopped":  # an end that nobody wanted is an error event instead
            log.warning("! %d events for %s are lost: it was stopped before its online", lost, slot.title)
        for error in errors:
            self._node.error(error, child=slot.child)
        if slot.restart_at is None:
            self._end(slot)

    def _end(self, slot: Slot) -> None:
        """This child will not be started again."""
        with self._node.lock:
            if slot in self.slots:
                self.slots.remove(slot)
            assert slot.link is not None
            slot.link.drop("link-cut", slot.drop_next())
            self._node.retire(slot.link)
        slot.inherited = Inheritance()  # whoever made them may be rid of them now
        slot.ended.set()
        self._on_empty()

    def _restart(self, slot: Slot) -> None:
        if slot.wanted or self._deadline is not None:
            self._end(slot)
            return
        try:
            self._start(slot)
        except Exception as exc:  # the system, or a forkserver that is gone, refuses in many ways
            now = monotonic()
            with self._node.lock:
                self._socket.forget(slot)
                decision = slot.policy.exited(
                    now,
                    None,
                    finished=False,
                    wanted=slot.wanted,
                    refused=isinstance(exc, Unpicklable),  # an argument is gone for good
                    explicit=slot.explicit,
                )
                if isinstance(decision, Restart):
                    slot.restart_at = now + decision.after
            failed = StartFailed(slot.pid, None, why=failure(exc), name=slot.name)
            self._node.error(failed, child=slot.child)
            if slot.restart_at is None:
                self._end(slot)
            return
        self.restarts += 1

    # Stopping

    def _stop(self, deadline: Deadline) -> None:
        """End everything below, then the rest, within the deadline."""
        self._on_stop()
        with self._node.lock:
            for slot in self.slots:
                slot.tell_stop(deadline)
        # Also without children: until the main thread has left its program.
        child = self._childhood
        while (slots := self._all()) or not (child is None or child.has_left() or deadline.passed()):
            until = None if deadline.passed() else deadline.at
            if child is not None and until is not None:
                look_at = child.hurry(deadline, alone=not slots)
                if child.ends_at_once:
                    break  # it has no children any more
                until = until if look_at is None else min(until, look_at)
            self._try_step(until)
            self._hurry(deadline)
        self._socket.close()  # before anybody is told that it is all over, and may end the process
        self._end_again()
        self._on_stopped(deadline)

    def _end_again(self) -> None:
        """The last steps may take their time, and nobody looks for signals meanwhile."""
        for number in self._again.close():
            again.send(number)

    def _hurry(self, deadline: Deadline) -> None:
        """Tell the children again where the deadline has been shortened meanwhile."""
        assert deadline.at is not None
        with self._node.lock:
            for slot in self.slots:
                if slot.kill_at is not None and slot.kill_at > deadline.at + AGAIN_SECONDS:
                    slot.tell_stop(deadline)
