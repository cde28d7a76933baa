"""How the program of a stopping child is brought to its end: what to do now, and when to look again.

A program that notices the stop by itself is left alone for a grace. After that it gets one SIGTERM in its
main thread, as from any supervisor. Where the library's own handler takes it, that raises an exception in
the program. Such an exception may be swallowed (by a finalizer, a C callback, a bare ``except``), and then it
is raised again; as long as it lives, ``finally`` blocks and other cleanup are at work, which nobody hurries.
How long that takes tells nothing: only whether the exception is still there does.
"""

from __future__ import annotations

from enum import Enum

ORPHAN_GRACE_SECONDS = 0.1  # without a parent everything is to be over within a second
# How often a program that was to be signalled is looked at. Nothing tells that a handler was changed, that a
# wait of the library is over, or that an exception was swallowed.
LOOK_SECONDS = 0.1


class Handler(Enum):
    """What SIGTERM does in this process."""

    OURS = "the library's handler: raises an exception in the program"
    USERS = "a handler of the program's own"
    DEFAULT = "ends the process at once, without cleanup"
    IGNORED = "nothing"


class Raised(Enum):
    """What became of the last exception that the library's handler raised."""

    NEVER = "none was raised yet"
    ALIVE = "it is on its way through the program"
    DEAD = "it is gone"


class Act(Enum):
    """What is to be done now."""

    NOTHING = "leave the program alone"
    SIGNAL = "send the main thread SIGTERM"
    LAST = "write what is queued, then send SIGTERM: it ends the process"


def grace(stop_grace: float, left: float, *, orphaned: bool) -> float:
    """How many seconds a program may take to notice a stop that has ``left`` seconds in all."""
    most = min(stop_grace, left / 3)
    return min(most, ORPHAN_GRACE_SECONDS) if orphaned else most


class Ending:
    """The end of one program. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._signal_at: float | None = None
        self._users_was_called = False
        self._not_before = float("-inf")  # after a signal, until the next look

    def signal_by(self, at: float) -> None:
        """The grace ends at that time, unless it ends earlier already."""
        if self._signal_at is None or at < self._signal_at:
            self._signal_at = at

    def next(
        self, now: float, *, runs: bool, alone: bool, handler: Handler, raised: Raised
    ) -> tuple[Act, float | None]:
        """What to do, and when to ask again; None for not before anything else happens.

        ``runs``: the main thread is in the program, and not in a wait of the library, which ends by itself.
        ``alone``: all children of this process have ended. The answer SIGNAL is taken as done.
        """
        if self._signal_at is None:
            return Act.NOTHING, None
        if now < self._signal_at:
            return Act.NOTHING, self._signal_at
        if now < self._not_before:  # asked for another reason: the last signal may be on its way
            return Act.NOTHING, self._not_before
        again = now + LOOK_SECONDS
        if not runs or raised is Raised.ALIVE or handler is Handler.IGNORED:
            return Act.NOTHING, again
        if handler is Handler.DEFAULT:
            return (Act.LAST, None) if alone else (Act.NOTHING, again)
        if handler is Handler.USERS:
            if self._users_was_called:
                return Act.NOTHING, again
            self._users_was_called = True
        # Ours is sent until it has raised: a signal that comes just before a system call does not end that.
        self._not_before = again
        return Act.SIGNAL, again
