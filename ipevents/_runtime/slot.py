"""What is known of one child over all its restarts.

All fields are guarded by the state lock, unless only the supervisor's thread uses them.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

from .._core.messages import FAILED, FAULT, FINISHED, ONLINE, STOP, Record
from .._core.restarts import RestartPolicy
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

    def tell_stop(self, deadline: Deadline) -> None:
        """State lock held: ask the child to stop; TERM and KILL follow if it does not."""
        left = deadline.left()
        assert left is not None
        assert self.link is not None
        if not self.alive:
            self.restart_at = monotonic() if self.restart_at is not None else None
            return
        step = min(max(STEP * left, LEAST_STEP_SECONDS), left / 2)
        self.link.tell((STOP, int((left - step) * 1000)))
        now = monotonic()
        self.term_at = now + left - step / 2
        self.kill_at = now + left if self.kill_at is None else min(self.kill_at, now + left)

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

    def act(self, now: float) -> None:
        """In the supervisor's thread: the warning and the signals that are due for a running child."""
        process = self.process
        if process is None or self.exited_at is not None:
            return
        if self.warn_at is not None and self.warn_at <= now:
            self.warn_at = None
            self._warn()
        if self.term_at is not None and self.term_at <= now:
            self.term_at = None
            log.debug("= TERM to child %s", self.pid)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
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
