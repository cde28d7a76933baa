"""What is known of one child over all its restarts.

All fields are guarded by the state lock, unless only the supervisor's thread uses them.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from .._core.messages import FAILED, FAULT, FINISHED, ONLINE, PROGRAM, STOP, Record
from .._core.outbox import Outbox
from .._core.restarts import GiveUp, RestartDecision, RestartPolicy
from .._core.stopping import grace
from .._exceptions import GaveUp, ProcessError, StartFailed, TargetFailed, WorkerRefused, child_title
from .._links.link import Link
from .._payload import forms
from .._payload.inheritance import Inheritance
from .._platform.clock import monotonic
from .._platform.logs import Log
from .._platform.threads import Deadline, Latch
from .process import ChildProcess
from .programs import Program

log = Log("ipevents.supervisor")

ADMITTED_SECONDS = 1.0  # from a child's handshake to its link
STEP = 0.05  # of a stop's time is kept for each level of the tree,
LEAST_STEP_SECONDS = 0.2  # but at least so much


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
        inherited: Inheritance | None = None,
        *,
        stop_grace: float = 1.0,
        leave_timeout: float | None = None,
    ) -> None:
        self.name = name
        self.inherited = inherited or Inheritance()  # kept with the slot, for all starts
        self.is_worker = is_worker
        self.policy = policy
        self.explicit = explicit
        self.start_method = start_method
        self.stop_grace = stop_grace  # seconds
        self.leave_timeout = leave_timeout  # seconds, None for no limit
        self.program, self.program_size = forms.encode(tuple(program), {})
        self.link: Link | None = None
        self.process: ChildProcess | None = None
        self.pid = ""
        self.starts = 0
        self.exitcode: int | None = None
        self.wanted = False  # stop() or kill() was called: its end is final
        self.ended = Latch()  # the final end
        self.child: Any = None  # the user's handle of it
        # Of the next process, until it is started: PROGRAM, and what Child.send was given since the end of
        # the one before. Apart from the outbox of that one, which may still be written to by its pid.
        self._next: Outbox | None = None
        self.begin()

    def begin(self) -> None:
        """Everything that concerns one start only."""
        self.key = os.urandom(8)
        self.token = os.urandom(32)
        self.sent_before = 0  # events on its link until this start
        self.admitted_at: float | None = None
        self.is_named = False
        self.attached = False
        self.early: Connection | None = None  # a connection that came before the start had returned
        self.online = False
        self.link_read = False
        self.exited_at: float | None = None
        self.finished = False
        self.refused = False
        self.failure = ""
        self.fault = ""  # of the library or the system, for which it ended
        self.restart_at: float | None = None
        self.stop_told = False
        self.term_sent = False
        self.goes_on = False  # its main thread has stopped it by itself; what follows is out of its own reach
        self.warn_at: float | None = None
        self.term_at: float | None = None
        self.kill_at: float | None = None

    @property
    def title(self) -> str:
        """The child as texts for people name it: ``child resize (4718)``."""
        return child_title(self.name, self.pid)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.exited_at is None

    def next_outbox(self) -> Outbox:
        """State lock held, no process runs: where what the next one gets waits for it; full as any other."""
        if self._next is None:
            self._next = Outbox()
            self._next.put((PROGRAM, (), "", None, [self.program]), self.program_size)
        return self._next

    def started(self, process: ChildProcess) -> None:
        """State lock held: the next process runs; from now on what is sent goes into its link."""
        self.starts += 1
        self.process = process
        self._next = None

    def drop_next(self) -> int:
        """State lock held: there will be no other process. Returns how many events waited for it."""
        lost = 0 if self._next is None else self._next.count_messages()
        self._next = None
        return lost

    def times(self) -> list[float | None]:
        """When something is to be done for it: only what can still be done, or the thread would spin."""
        if self.process is None:
            return [self.restart_at]
        if self.exited_at is None:
            return [self.warn_at, self.term_at if self._is_out_of_reach() else None, self.kill_at]
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

    def tell_stop(self, deadline: Deadline) -> None:
        """State lock held: ask the child to stop; KILL follows if it does not.

        TERM is what the child itself sends its main thread, see childhood.py. Ours is for one that has closed
        its link by a ``stop()`` of its own, and so hears of nothing, while its program goes on.
        """
        left = deadline.left()
        assert left is not None
        assert self.link is not None
        if not self.alive:
            self.restart_at = monotonic() if self.restart_at is not None else None
            return
        step = min(max(STEP * left, LEAST_STEP_SECONDS), left / 2)
        self.link.tell((STOP, int((left - step) * 1000)))
        now = monotonic()
        self.stop_told = True
        if self.term_at is None and not self.term_sent:
            self.term_at = now + grace(self.stop_grace, left, orphaned=False)
        self.kill_at = now + left if self.kill_at is None else min(self.kill_at, now + left)

    def connected(self) -> None:
        """State lock held: it has its link. What it was told before has waited, so less time is left."""
        if self.stop_told and self.kill_at is not None:
            self.tell_stop(Deadline(max(0.0, self.kill_at - monotonic())))

    def leaves(self, now: float) -> None:
        """State lock held: its link is read to the end, so it is about to end by itself."""
        self.link_read = True
        if self.alive and self.kill_at is None and self.leave_timeout is not None:
            self.kill_at = now + self.leave_timeout

    def _is_out_of_reach(self) -> bool:
        return self.goes_on and self.link_read

    def tell_kill(self) -> None:
        """State lock held: it is to be ended at once, and not started again."""
        self.wanted = True
        self.kill_at = monotonic()
        if self.restart_at is not None:
            self.restart_at = self.kill_at

    def heard(self, record: Record) -> None:
        """State lock held: what the child says of itself, ONLINE, FAILED, FAULT or FINISHED."""
        kind = record[0]
        if kind == ONLINE:
            self.online = self.online or len(record[1]) == 1
            self.warn_at = None if self.online else self.warn_at
        elif kind == FAILED:
            _, text, refused = record
            self.failure, self.refused = str(text), bool(refused)
        elif kind == FAULT:
            self.fault = str(record[1])
        elif kind == FINISHED:
            self.finished = True
            self.goes_on = len(record) > 1 and bool(record[1])

    def failures(self, online: bool, stopping: bool, decision: RestartDecision) -> list[ProcessError]:
        """State lock held: what is to be told of an end, ``online`` whether it came after the online.

        An end that was asked for, of this child or of the whole tree, is none that failed.
        """
        told: list[ProcessError] = []
        failed = not self.wanted and not stopping
        if not online and failed:
            told.append(StartFailed(self.pid, self.exitcode, self.failure, self.fault, self.name))
        elif self.refused:
            told.append(WorkerRefused(f"{self.title} was refused and is not started again\n{self.failure}"))
        elif self.failure and failed:
            told.append(TargetFailed(self.pid, self.exitcode, self.failure, self.name))
        elif self.fault and failed:
            told.append(ProcessError(f"{self.title} ended for a fault: {self.fault}"))
        if isinstance(decision, GiveUp):
            told.append(GaveUp(f"{self.title} died young {decision.deaths} times in a row"))
        return told

    def act(self, now: float) -> None:
        """In the supervisor's thread: the warning and the signals that are due for a running child."""
        process = self.process
        if process is None or self.exited_at is not None:
            return
        if self.warn_at is not None and self.warn_at <= now:
            self.warn_at = None
            self._warn()
        if self.term_at is not None and self.term_at <= now and self._is_out_of_reach():
            self.term_at, self.term_sent = None, True
            log.debug("= TERM to %s", self.title)
            process.send_signal(signal.SIGTERM)
        if self.kill_at is not None and self.kill_at <= now:
            self.kill_at = None
            log.debug("= KILL to %s", self.title)
            process.send_signal(signal.SIGKILL)

    def _warn(self) -> None:
        link = self.link
        assert link is not None
        waiting = link.count_waiting(self.sent_before)
        if waiting:
            log.warning(
                "! %d events for %s wait: it has not said online yet; it does so when it calls ipem.start(), "
                "sends, or waits",
                waiting,
                self.title,
            )
