"""The children of this process: how they are started, what follows their end, how they are told to stop.

No thread of its own: the first start of a child runs in the thread that asks for it, everything else in the
supervisor's thread, unless it says otherwise.

Locks. The list of children and the fields of a ChildState are guarded by the state lock. What is reported to
the user is reported after the lock is released.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .._core.callable_names import failure
from .._core.child_states import Phase
from .._core.messages import Record
from .._core.state import Stage
from .._exceptions import LinkError, StartFailed, Unpicklable
from .._links.link import Link
from .._node.node import Node
from .._payload.inheritance import Inheritance
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.signal_resend import AGAIN_SECONDS
from .._platform.threads import Deadline
from .child_socket import ChildSocket
from .child_state import ChildState
from .process import ChildProcess, Launch

log = Log("ipevents.supervisor")

SILENT_SECONDS = 10.0  # what waits for an online is named in a warning after this (README, Guarantees)
GIVE_BACK_SECONDS = 1.0  # for threads that wait for nothing


class Children:
    """The children that have not ended. Their main threads run ``child_main(launch, ...)``.

    ``ring()`` lets the supervisor look again; ``on_empty()`` is called when a child has ended for good.
    """

    def __init__(
        self,
        node: Node,
        *,
        depth: int,
        incarnation: int,
        child_main: Callable[..., None],
        ring: Callable[[], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._node = node
        self._depth = depth
        self._child_main = child_main
        self._ring = ring
        self._on_empty = on_empty
        self._states: list[ChildState] = []  # guarded by the state lock
        self.restarts = 0
        self._socket = ChildSocket(node, incarnation=incarnation, on_attached=ring)

    def __len__(self) -> int:
        return len(self._states)

    # Starts

    def add(self, child: ChildState) -> None:
        """Start a child for the first time, in the calling thread. Raises OSError where that is refused."""
        node = self._node
        self._socket.open()
        outer = node.inside()
        link = Link(child.name, node.lock, node.incoming.receive, self._link_closed)
        try:
            link.role, link.given_name, link.child = "child", child.name, child.handle
            child.link = link
            with node.lock:
                if node.stage is not Stage.OPEN:  # a stop was faster; it does not know of this link
                    raise node.stage_error()
                self._states.append(child)
            self._start(child)
        except BaseException:  # the stop, the system refuses, or Ctrl-C: there is no such child
            node.let_go(outer)
            if child.process is None:
                self._take_back(child, link)
            else:  # a signal handler, when it ran already: nobody gets a handle of it
                self.kill_child(child)
            self._ring()
            raise
        self._ring()

    def _take_back(self, child: ChildState, link: Link) -> None:
        """After a first start that has failed: the child has never been."""
        with self._node.lock:
            if child in self._states:
                self._states.remove(child)
                child.ends()
            self._socket.forget(child)
        self._give_back(link)

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
        process = None
        try:
            inherited = child.inherited.passed(child.start_method)
            process = ChildProcess(self._child_main, launch, child.name, inherited)
            self._started(child, process)
        except BaseException:  # of a signal handler, where there is a process
            if process is not None and child.process is None:
                process.discard()
            raise
        log.debug("= %s started", child.title)

    def _started(self, child: ChildState, process: ChildProcess) -> None:
        """The process runs: it has its name from here on, and is watched."""
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

    # What children say: in their links' readers

    def control(self, link: Link, record: Record) -> None:
        """ONLINE, FAILED, FAULT and FINISHED of a child of ours."""
        child = self._child_of(link)
        if child is not None:
            with self._node.lock:
                child.heard(record)

    def _child_of(self, link: Link) -> ChildState | None:
        with self._node.lock:
            return next((child for child in self._states if child.link is link), None)

    def _link_closed(self, link: Link, error: Exception | None) -> None:
        child = self._child_of(link)
        if isinstance(error, LinkError):
            self._node.error(error, child=link.child)
        if child is None:
            return
        with self._node.lock:
            child.leaves(monotonic())
        self._ring()

    # Wishes, from any thread

    def stop_child(self, child: ChildState, seconds: float) -> None:
        """Ask one child to end within ``seconds``, then make it; no restart."""
        with self._node.lock:
            child.wanted = True
            child.send_stop(Deadline(seconds))
        self._ring()

    def kill_child(self, child: ChildState) -> None:
        """End one child at once; no restart."""
        with self._node.lock:
            child.kill()
        self._ring()

    def stop(self, deadline: Deadline) -> None:
        """Ask all of them at once to end until then, and send them KILL after it."""
        with self._node.lock:
            for child in self._states:
                child.send_stop(deadline)

    def hurry(self, deadline: Deadline) -> None:
        """Ask them again where the deadline has been shortened since."""
        assert deadline.at is not None
        with self._node.lock:
            for child in self._states:
                if child.kill_at is not None and child.kill_at > deadline.at + AGAIN_SECONDS:
                    child.send_stop(deadline)

    def kill_all(self) -> None:
        """KILL all of them now, and remove the directory. Takes no lock, for a signal handler."""
        for child in list(self._states):
            process = child.process
            if process is not None and child.alive:
                process.send_signal(signal.SIGKILL)
        self._socket.remove()

    def give_up(self) -> None:
        """After ``kill_all``, where nobody waits for their ends any more: reap them all, let nobody in."""
        self._socket.close()
        for child in self._all():
            process = child.process
            if process is not None:
                child.exitcode = process.reap()
                process.close()
            with self._node.lock:
                self._states.remove(child)
                child.ends()
            child.ended.set()

    # The socket

    def close_socket(self) -> None:
        """Let nobody in any more, and remove the directory."""
        self._socket.close()

    def remove_socket(self) -> None:
        """Remove the directory only. Takes no lock, for a signal handler; idempotent."""
        self._socket.remove()

    def abandon(self) -> None:
        """In a forked process: give our copies of the descriptors back, leave everything else alone."""
        for child in self._states:
            child.link.abandon()
            if child.process is not None:
                child.process.abandon()
        self._socket.abandon()

    # What is due

    def watched(self) -> tuple[list[ChildState], list[float]]:
        """Those whose process runs, and the times at which something is to be done for one of them."""
        with self._node.lock:
            alive = [child for child in self._states if child.alive]
            return alive, [at for child in self._states for at in child.times() if at is not None]

    def look(self, now: float, deadline: Deadline | None) -> None:
        """Do whatever the clock or the links ask for. ``deadline`` is that of the stop, if there is one."""
        for child in self._all():
            self._due(child, now, deadline)

    def _all(self) -> list[ChildState]:
        with self._node.lock:
            return list(self._states)

    def exited(self, child: ChildState) -> None:
        """Its process has ended."""
        process = child.process
        if process is not None and child.alive:  # else this is done once more, after a fault further down
            code = process.reap()
            with self._node.lock:
                if child.alive:
                    child.exited(code, monotonic())
            log.debug("= %s ended with %s", child.title, code)
        # What it wrote is read first, also where a forked helper keeps its end open.
        child.link.close_session()

    def _due(self, child: ChildState, now: float, deadline: Deadline | None) -> None:
        """Whatever the clock or the link asks for in one child."""
        if child.phase is Phase.EXITED:
            # A listener that never returns keeps the link from being read: a stop does not wait for it.
            overdue = deadline is not None and deadline.passed()
            if overdue or child.is_read(now):
                self._finish(child, stopping=deadline is not None)
        if child.phase is Phase.WAITING and child.restart_at <= now:
            self._restart(child, stopping=deadline is not None)
        child.act(now)

    def _finish(self, child: ChildState, *, stopping: bool) -> None:
        """Its process has ended and its link is read to the end: report that, and decide what follows."""
        link, process = child.link, child.process
        with self._node.lock:
            if child.phase is not Phase.EXITED:
                return
            code = child.exitcode
            self._socket.forget(child)
            cause = "stopped" if child.wanted or stopping else "link-cut"
            lost = link.dropped.get(cause, 0)
            online, notices = self._node.presence.child_gone(link, code, cause)
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
            self._node.events.tell_offlines(notices)
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
        self._states.remove(child)
        child.link.drop("link-cut", child.ends())
        self._node.presence.retire(child.link)

    def _announce_end(self, child: ChildState) -> None:
        """After ``_end``, when everything else is reported: threads that wait for the end go on."""
        child.inherited = Inheritance()  # whoever made them may be rid of them now
        child.ended.set()
        self._on_empty()

    def _restart(self, child: ChildState, *, stopping: bool) -> None:
        if child.wanted or stopping:
            with self._node.lock:
                self._end(child)
            self._announce_end(child)
            return
        try:
            self._start(child)
        except BaseException as exc:  # of the system, a forkserver that is gone, an object that is passed on
            now = monotonic()
            with self._node.lock:
                if child.alive:  # the fault came after the start: the end of the process decides what follows
                    child.kill_at = now
                    raise
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
