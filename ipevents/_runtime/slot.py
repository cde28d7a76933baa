"""What is known of one child over all its restarts.

All fields are guarded by the state lock, unless only the supervisor's thread uses them.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

from .._core.messages import FAILED, FINISHED, ONLINE, STOP, Record
from .._core.restarts import RestartPolicy
from .._core.stopping import grace
from . import payload
from .clock import monotonic
from .link import Link
from .logs import Log
from .process import ChildProcess
from .programs import Program
from .threads import Deadline, Latch

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
        *,
        stop_grace: float = 1.0,
        leave_timeout: float | None = None,
    ) -> None:
        self.name = name
        self.is_worker = is_worker
        self.policy = policy
        self.explicit = explicit
        self.start_method = start_method
        self.stop_grace = stop_grace  # seconds
        self.leave_timeout = leave_timeout  # seconds, None for no limit
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
        self.is_named = False
        self.attached = False
        self.early: Connection | None = None  # a connection that came before the start had returned
        self.online = False
        self.link_read = False
        self.exited_at: float | None = None
        self.finished = False
        self.refused = False
        self.failure = ""
        self.restart_at: float | None = None
        self.stop_told = False
        self.term_sent = False
        self.goes_on = False  # its main thread has stopped it by itself; what follows is out of its own reach
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
        """State lock held: what the child says of itself, ONLINE, FAILED or FINISHED."""
        kind = record[0]
        if kind == ONLINE:
            self.online = self.online or len(record[1]) == 1
            self.warn_at = None if self.online else self.warn_at
        elif kind == FAILED:
            _, text, refused = record
            self.failure, self.refused = str(text), bool(refused)
        elif kind == FINISHED:
            self.finished = True
            self.goes_on = len(record) > 1 and bool(record[1])

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
            log.debug("= TERM to child %s", self.pid)
            process.send_signal(signal.SIGTERM)
        if self.kill_at is not None and self.kill_at <= now:
            self.kill_at = None
            log.debug("= KILL to child %s", self.pid)
            process.send_signal(signal.SIGKILL)

    def _warn(self) -> None:
        link = self.link
        assert link is not None
        waiting = link.sent - self.sent_before + link.outbox.count
        if waiting > 0:
            log.warning("! %d events for child %s wait: it has not said online yet", waiting, self.pid)
