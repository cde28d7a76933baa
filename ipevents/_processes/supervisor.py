"""The thread that watches children and parent, and in which the whole stop of a process runs.

Every process has one, also without children, because a child has to notice the end of its parent.

Locks: none of its own. ``_deadline`` is set in any thread and by signal handlers; once set, it is only
shortened. The thread blocks in ``sentinels`` (ended by its ring), in starting a process (milliseconds), and
in the steps of a stop (each under its deadline). It never runs a listener; it waits for listeners only in a
stop, under the deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._node.node import Node
from .._platform import signal_resend
from .._platform.clock import monotonic
from .._platform.guards import patient
from .._platform.logs import Log
from .._platform.signal_resend import Again
from .._platform.threads import Deadline, join_thread, start_thread
from .child_state import ChildState
from .children import SILENT_SECONDS, Children
from .role import Role
from .sentinels import Sentinels

log = Log("ipevents.supervisor")

LAST_SECONDS = 1.0  # for the rest of a stop after a fault


class Supervisor:
    """One process's supervisor: its thread, its children, and the wishes that other threads have for it.

    Callbacks, in its thread:

    - ``on_stop(supervisor, deadline)`` is the whole stop, once one was asked for. It calls ``end_children``.
      The thread ends after it.
    - ``on_fault(exc)``: this thread has failed too often in a row, and stops everything.
    """

    def __init__(
        self,
        node: Node,
        *,
        depth: int,
        incarnation: int,
        role: Role,
        child_main: Callable[..., None],
        on_stop: Callable[[Supervisor, Deadline], None],
        on_fault: Callable[[BaseException], None] = lambda exc: None,
    ) -> None:
        self._node = node
        self._role = role
        self._on_stop = on_stop
        self._on_fault = on_fault
        self._faults = 0  # in a row
        self._has_failed = False  # for good
        self._ended: list[ChildState] = []  # children whose process has ended; what follows is to be done
        self._deadline: Deadline | None = None  # of the stop that was asked for
        self._warn_held_at: float | None = None
        self._thread: threading.Thread | None = None
        self._is_discarded = False
        self._unclaimed = [self]  # taken by the thread when it begins, or by discard() before that
        node.timers.clear()
        self.sentinels = Sentinels()
        try:
            node.timers.ring = self.sentinels.ring
            self.children = Children(
                node,
                depth=depth,
                incarnation=incarnation,
                child_main=child_main,
                ring=self.sentinels.ring,
                on_empty=role.look_again,
            )
            self._again = Again(self.sentinels.ring)
        except BaseException:  # of a signal handler
            self.sentinels.close()
            raise

    def begin(self, *, warns: bool = True) -> None:
        """Start the thread. ``warns``: it may say that events wait for this process's ``online``."""
        if warns and self._node.incoming.holding:
            self._warn_held_at = monotonic() + SILENT_SECONDS
        self._thread = start_thread(f"supervisor-{self._node.router.pid}", self._run)

    # Wishes, from any thread

    def request_stop(self, seconds: float) -> None:
        """Stop everything within ``seconds``; of several requests the shortest counts.

        Takes no lock, so a signal handler may call it.
        """
        try:
            if self._deadline is None:
                self._deadline = Deadline(seconds)
            else:  # the shortest time counts, such as that after the end of the parent
                self._deadline.shorten(seconds)
        finally:
            self.sentinels.ring()

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment.

        Returns False if it is too late. Takes no lock.
        """
        return self._again.put(number)

    def kill_all(self) -> None:
        """Kill all children now; the caller ends the process next.

        Takes no lock, so a signal handler may call it.
        """
        self.children.kill_all()

    def join(self, deadline: Deadline) -> bool:
        """Wait until the thread has ended. Returns whether it has."""
        return join_thread(self._thread, deadline)

    def discard(self, deadline: Deadline) -> None:
        """End the thread, if it was started, and close the descriptors.

        For a supervisor that no other code has yet.
        """
        self._is_discarded = True
        self.sentinels.ring()
        if self._thread is not None:
            join_thread(self._thread, deadline)
        else:  # or its start was interrupted by a signal handler: then it may run all the same
            try:
                self._unclaimed.pop()
            except IndexError:  # it does, and ends by itself
                return
            self.sentinels.close()

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a forked child; leave everything else alone."""
        self.children.abandon()
        self.sentinels.abandon()

    # The thread

    def _run(self) -> None:
        """Watch until a stop is asked for, then carry it out. The body of the thread."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return  # discarded, before it began
        try:
            try:
                while self._deadline is None:
                    if self._is_discarded:
                        return
                    self._try_step(None)
                deadline = self._deadline
            except BaseException as exc:
                deadline = self._fail(exc)
            self._on_stop(self, deadline)
        finally:
            self.children.remove_socket()
            self.sentinels.close()

    def _fail(self, exc: BaseException) -> Deadline:
        """Kill all children and report a fault that lasts: without this thread nothing is watched any more.

        Returns the deadline for the rest of the stop.
        """
        log.exception("! the supervisor of %s ends, and kills all children", self._node.place())
        self._has_failed = True
        self.kill_all()
        try:
            self._on_fault(exc)
        except BaseException:  # no memory to report it with, say; the stop follows all the same
            log.exception("! the fault could not be reported")
        return Deadline(LAST_SECONDS)

    def _try_step(self, until: float | None) -> None:
        """Call ``_step``.

        A fault of the system (no memory, no descriptor) is logged; the next step may succeed.

        Raises the fault where too many have come in a row.
        """
        try:
            self._step(until)
            self._faults = 0
        except BaseException:  # also of the library itself
            self._faults += 1
            log.exception("! a step of the supervisor failed")
            if not patient(self._faults):
                raise

    def _step(self, until: float | None) -> None:
        """Wait for whatever comes first, at most until the given time, and handle it."""
        alive, times = self.children.watched()
        look_at = self._again.next_look(monotonic())
        times += [at for at in (until, look_at, self._warn_held_at, self._next_timer()) if at is not None]
        up = self._role.up
        channels = [child.channel for child in alive if child.channel is not None]
        if up is not None:
            channels.append(up.channel)
        for channel in channels:
            channel.write()
        seconds = min(times) - monotonic() if times else None
        ended, parent_ended, heard = self.sentinels.wait(alive, seconds, channels)
        self._ended += ended  # kept, because wait() returns each end once and the next lines may fail
        if parent_ended:
            self._role.parent_ended()
        for channel in heard:
            channel.read()
        while self._ended:
            self.children.exited(self._ended[0])
            del self._ended[0]
        now = monotonic()
        for number in self._again.take(now):
            signal_resend.send(number)
        self._warn_held(now)
        with self._node.lock:
            due = self._node.timers.take(now)
        for call in due:
            call()
        self.children.look(now, self._deadline)
        if up is not None:
            up.look()

    def _next_timer(self) -> float | None:
        """Return when the next call of the node's timers is due; None if there is none."""
        with self._node.lock:
            return self._node.timers.next_at()

    def _warn_held(self, now: float) -> None:
        """Log how many events from the parent wait for our online, once, SILENT_SECONDS after ``begin``."""
        if self._warn_held_at is None or now < self._warn_held_at:
            return
        self._warn_held_at = None
        count = self._node.incoming.held.count
        if count:
            log.warning(
                "! %d events wait for %s to say online: call ipem.start() there when its listeners are "
                "registered",
                count,
                self._node.place(),
            )

    # The stop

    def end_children(self, deadline: Deadline) -> Deadline:
        """End all children, and this process's own program, by the deadline. A step of ``on_stop``.

        Returns the deadline for what follows, which is another one after a fault. Afterwards no child can
        connect, and the directory of their socket is gone.
        """
        if not self._has_failed:
            try:
                self._end_children(deadline)
            except BaseException as exc:
                deadline = self._fail(exc)
        if self._has_failed:
            self.children.give_up()
        self.children.close()  # before the end is announced, after which the process may end at once
        # What follows may take its time, and this thread looks for no signals to resend meanwhile.
        for number in self._again.close():
            signal_resend.send(number)
        return deadline

    def _end_children(self, deadline: Deadline) -> None:
        """Ask the children to stop; wait until all have ended and the main thread has left its program."""
        self.children.stop(deadline)
        # Also without children: until the main thread has left its program.
        role = self._role
        while self.children or not (role.has_left() or deadline.passed()):
            until = None if deadline.passed() else deadline.at
            if until is not None:
                look_at = role.hurry(deadline, alone=not self.children)
                if role.ends_at_once:
                    break  # it has no children any more
                until = until if look_at is None else min(until, look_at)
            self._try_step(until)
            self.children.hurry(deadline)
