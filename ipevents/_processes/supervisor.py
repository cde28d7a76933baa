"""One thread over all children and the parent: waits, restarts, stops.

Present in every process, also without children, because a child has to notice the end of its parent.

Locks. ``children`` and the fields of a ChildState are guarded by the state lock. The thread blocks in
``sentinels`` (ended by its ring), in starting a process (milliseconds), in the steps of a stop (each under
its deadline).
It never runs a listener and never waits for one.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from .._core.callable_names import failure
from .._core.child_states import Phase
from .._core.messages import Record
from .._core.state import Stage
from .._exceptions import LinkError, StartFailed, Unpicklable
from .._links.link import Link
from .._node.node import Node
from .._payload.inheritance import Inheritance
from .._platform import signal_resend
from .._platform.clock import monotonic
from .._platform.guards import patient
from .._platform.logs import Log
from .._platform.signal_resend import AGAIN_SECONDS, Again
from .._platform.threads import Deadline, join_thread, start_thread
from .child_socket import ChildSocket
from .child_state import ChildState
from .process import ChildProcess, Launch
from .role import Role
from .sentinels import Sentinels

log = Log("ipevents.supervisor")

SILENT_SECONDS = 10.0  # what waits for an online is named after this (DESIGN section 3)
GIVE_BACK_SECONDS = 1.0  # for threads that wait for nothing


class Supervisor:
    """Owner of the children. Callbacks, in its thread: ``on_stop()``, which does not block, before children
    are told to stop; ``on_stopped(deadline)`` when they have ended and the main thread has left its program
    (see ``Role.hurry``), or the deadline has passed; ``on_empty()`` when a child has ended for good;
    ``on_fault(exc)`` when this thread has failed too often in a row and ends everything. In a child's main
    thread ``child_main(launch, ...)`` runs.
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
        role: Role,
        child_main: Callable[..., None],
    ) -> None:
        self._node = node
        self._depth = depth
        self._on_stop = on_stop
        self._on_stopped = on_stopped
        self._on_empty = on_empty
        self._on_fault = on_fault
        self._faults = 0  # in a row
        self._ended: list[ChildState] = []  # their processes have, what follows is still to be done
        self._role = role
        self._child_main = child_main
        self.children: list[ChildState] = []  # not ended ones; guarded by the state lock
        self.restarts = 0
        self.sentinels = Sentinels()
        self._socket = ChildSocket(node, incarnation=incarnation, on_attached=self.sentinels.ring)
        self._deadline: Deadline | None = None  # of the stop that was asked for
        self._again = Again(self.sentinels.ring)
        self._warn_held_at: float | None = None
        self._thread: threading.Thread | None = None
        self._is_discarded = False
        self._may_run = False  # the start of the thread was interrupted

    def begin(self) -> None:
        """Start the thread."""
        if self._node.incoming.holding:
            self._warn_held_at = monotonic() + SILENT_SECONDS
        try:
            self._thread = start_thread(f"supervisor-{self._node.router.pid}", self._run)
        except RuntimeError:  # there is no thread
            raise
        except (
            BaseException
        ):  # of a signal handler, perhaps when the thread runs already: then it ends by itself
            self._may_run = True
            raise

    # Children

    def add(self, child: ChildState) -> None:
        """Start a child for the first time, in the calling thread. Raises OSError where that is refused."""
        self._socket.open()
        link = Link(child.name, self._node.lock, self._node.receive, self._link_closed)
        link.role, link.given_name, link.child = "child", child.name, child.handle
        child.link = link
        with self._node.lock:
            is_open = self._node.stage is Stage.OPEN
            if is_open:
                self.children.append(child)
        if not is_open:  # a stop was faster; it does not know of this link
            self._give_back(link)
            raise self._node.stage_error()
        try:
            self._start(child)
        except BaseException:  # the system refuses, or Ctrl-C: there is no such child
            with self._node.lock:
                self.children.remove(child)
                child.ends()
                self._socket.forget(child)
            self._give_back(link)
            self.sentinels.ring()
            raise
        self.sentinels.ring()

    def _give_back(self, link: Link) -> None:
        """End the link of a child that has not come to be, with its threads."""
        with self._node.lock:
            link.end()
        link.join(Deadline(GIVE_BACK_SECONDS))

    def _start(self, child: ChildState) -> None:
        """One start of a child; in ``add`` or in the supervisor's thread."""
        with self._node.lock:
            child.starts_now(monotonic())
            self._socket.expect(child)
        secrets = (self._socket.address, child.key_id, child.token)
        launch = Launch(
            *secrets, os.getpid(), self._depth + 1, child.is_worker, child.start_method, child.stop_grace
        )
        process = ChildProcess(
            self._child_main, launch, child.name, child.inherited.passed(child.start_method)
        )
        with self._node.lock:
            child.started(process)
            child.link.wake_waiters()
            self._socket.name(child, str(process.pid))
            child.warn_at = monotonic() + SILENT_SECONDS
            child.link.progress = monotonic()
            child.attach_early()
            stopping = self._node.stage is not Stage.OPEN
            if stopping or child.wanted:
                child.kill_at = monotonic()
        log.debug("= %s started", child.title)

    # What children say: in their links' readers

    def control(self, link: Link, record: Record) -> None:
        """ONLINE, FAILED, FAULT and FINISHED of a child of ours."""
        child = self._child_of(link)
        if child is not None:
            with self._node.lock:
                child.heard(record)

    def _child_of(self, link: Link) -> ChildState | None:
        with self._node.lock:
            return next((child for child in self.children if child.link is link), None)

    def _link_closed(self, link: Link, error: Exception | None) -> None:
        child = self._child_of(link)
        if isinstance(error, LinkError):
            self._node.error(error, child=link.child)
        if child is None:
            return
        with self._node.lock:
            child.leaves(monotonic())
        self.sentinels.ring()

    # Wishes, from any thread

    def stop_child(self, child: ChildState, seconds: float) -> None:
        """Ask one child to end within ``seconds``, then make it; no restart."""
        with self._node.lock:
            child.wanted = True
            child.send_stop(Deadline(seconds))
        self.sentinels.ring()

    def kill_child(self, child: ChildState) -> None:
        """End one child at once; no restart."""
        with self._node.lock:
            child.kill()
        self.sentinels.ring()

    def request_stop(self, seconds: float) -> None:
        """Stop everything within ``seconds``. Takes no lock: a signal handler may call it."""
        if self._deadline is None:
            self._deadline = Deadline(seconds)
        else:  # whoever asked with less patience counts, such as a parent that is gone
            self._deadline.shorten(seconds)
        self.sentinels.ring()

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment, without a lock. Returns False if too late."""
        return self._again.put(number)

    def kill_all(self) -> None:
        """KILL all children now; this thread ends the process next. Takes no lock, for a signal handler."""
        for child in list(self.children):
            process = child.process
            if process is not None and child.alive:
                process.send_signal(signal.SIGKILL)
        self._socket.remove()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the thread. Returns whether it has ended."""
        return join_thread(self._thread, deadline)

    def discard(self, deadline: Deadline) -> None:
        """Before anybody else knows of it: end the thread, if it was started, and give the descriptors
        back."""
        self._is_discarded = True
        self.sentinels.ring()
        if self._thread is not None:
            join_thread(self._thread, deadline)
        elif not self._may_run:  # else the thread closes it, and may be waiting on it now
            self.sentinels.close()

    def abandon(self) -> None:
        """In a forked child: give our descriptors back, leave everything else alone."""
        for child in self.children:
            child.link.abandon()
            if child.process is not None:
                child.process.abandon()
        self._socket.abandon()
        self.sentinels.abandon()

    # The thread

    def _run(self) -> None:
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
            self.sentinels.close()

    def _give_up_children(self) -> None:
        """After ``kill_all``, where nothing is watched any more: reap what that ended, let nobody in."""
        self._socket.close()
        for child in self._all():
            process = child.process
            if process is not None:
                child.exitcode = process.reap()
                process.close()
            with self._node.lock:
                self.children.remove(child)
                child.ends()
            child.ended.set()

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
            times = [at for child in self.children for at in child.times() if at is not None]
            alive = [child for child in self.children if child.alive]
        look_at = self._again.next_look(monotonic())
        times += [at for at in (until, look_at, self._warn_held_at) if at is not None]
        ended, parent_ended = self.sentinels.wait(alive, min(times) - monotonic() if times else None)
        if parent_ended:
            self._role.parent_ended()
        self._ended += ended  # each end is told once
        while self._ended:
            self._exited(self._ended[0])
            del self._ended[0]
        now = monotonic()
        for number in self._again.take(now):
            signal_resend.send(number)
        self._warn_held(now)
        for child in self._all():
            self._due(child, now)

    def _all(self) -> list[ChildState]:
        with self._node.lock:
            return list(self.children)

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

    def _exited(self, child: ChildState) -> None:
        process = child.process
        if process is not None and child.alive:  # else this is done once more, after a fault further down
            code = process.reap()
            with self._node.lock:
                if child.alive:
                    child.exited(code, monotonic())
            log.debug("= %s ended with %s", child.title, code)
        # What it wrote is read first, also where a forked helper keeps its end open.
        child.link.close_session()

    def _due(self, child: ChildState, now: float) -> None:
        """Whatever the clock or the link asks for in one child."""
        if child.phase is Phase.EXITED:
            # A listener that never returns keeps the link from being read: a stop does not wait for it.
            overdue = self._deadline is not None and self._deadline.passed()
            if overdue or child.is_read(now):
                self._finish(child)
        if child.phase is Phase.WAITING and child.restart_at <= now:
            self._restart(child)
        child.act(now)

    def _finish(self, child: ChildState) -> None:
        """Its process has ended and its link is read to the end: report that, and decide what follows."""
        link, process = child.link, child.process
        with self._node.lock:
            if child.phase is not Phase.EXITED:
                return
            code = child.exitcode
            stopping = self._deadline is not None
            self._socket.forget(child)
            cause = "stopped" if child.wanted or stopping else "link-cut"
            lost = link.dropped.get(cause, 0)
            online, notices = self._node.child_gone(link, code, cause)
            if not online:  # what it was sent waited there for its online
                link.drop(cause, link.sent - child.sent_before)
            lost = link.dropped.get(cause, 0) - lost
            decision = child.policy.exited(
                child.exited_at,
                code,
                finished=child.finished,
                wanted=child.wanted or stopping,
                refused=child.refused,
                explicit=child.explicit,
            )
            errors = child.failures(online, stopping, decision)
            goes_on = child.goes_next(decision, child.exited_at)
            self._node.tell_offlines(notices)
            if not goes_on:
                self._end(child)
        if process is not None:
            process.close()
        if lost and not online and cause == "stopped":  # an end that nobody wanted is an error event instead
            log.warning("! %d events for %s are lost: it was stopped before its online", lost, child.title)
        for error in errors:
            self._node.error(error, child=child.handle)
        if not goes_on:
            self._announce_end(child)

    def _end(self, child: ChildState) -> None:
        """State lock held: this child will not be started again."""
        self.children.remove(child)
        child.link.drop("link-cut", child.ends())
        self._node.retire(child.link)

    def _announce_end(self, child: ChildState) -> None:
        """After ``_end``, when everything else is reported: threads that wait for the end go on."""
        child.inherited = Inheritance()  # whoever made them may be rid of them now
        child.ended.set()
        self._on_empty()

    def _restart(self, child: ChildState) -> None:
        if child.wanted or self._deadline is not None:
            with self._node.lock:
                self._end(child)
            self._announce_end(child)
            return
        try:
            self._start(child)
        except Exception as exc:  # the system, or a forkserver that is gone, refuses in many ways
            now = monotonic()
            with self._node.lock:
                self._socket.forget(child)
                decision = child.policy.exited(
                    now,
                    None,
                    finished=False,
                    wanted=child.wanted,
                    refused=isinstance(exc, Unpicklable),  # an argument is gone for good
                    explicit=child.explicit,
                )
                goes_on = child.goes_next(decision, now)
                if not goes_on:
                    self._end(child)
            failed = StartFailed(child.pid, None, why=failure(exc), name=child.name)
            self._node.error(failed, child=child.handle)
            if not goes_on:
                self._announce_end(child)
            return
        self.restarts += 1

    # Stopping

    def _stop(self, deadline: Deadline) -> None:
        """End everything below, then the rest, within the deadline."""
        self._on_stop()
        with self._node.lock:
            for child in self.children:
                child.send_stop(deadline)
        # Also without children: until the main thread has left its program.
        role = self._role
        while (children := self._all()) or not (role.has_left() or deadline.passed()):
            until = None if deadline.passed() else deadline.at
            if until is not None:
                look_at = role.hurry(deadline, alone=not children)
                if role.ends_at_once:
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
            signal_resend.send(number)

    def _hurry(self, deadline: Deadline) -> None:
        """Tell the children again where the deadline has been shortened meanwhile."""
        assert deadline.at is not None
        with self._node.lock:
            for child in self.children:
                if child.kill_at is not None and child.kill_at > deadline.at + AGAIN_SECONDS:
                    child.send_stop(deadline)
