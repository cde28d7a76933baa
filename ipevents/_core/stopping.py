"""How the program of a stopping child is brought to its end: what to do now, and when to look again.

First a program has a grace period in which it may notice the stop by itself. After that it gets a SIGTERM in
its main thread, as from any supervisor. The library's own handler for that raises an exception in the
program. A finalizer, a C callback or a bare ``except`` may swallow the exception; then it is raised again. As
long as the exception object exists, ``finally`` blocks and other cleanup are at work, and are not disturbed.
(How long that takes says nothing about it, so there is no time limit here.)
"""

from __future__ import annotations

from enum import Enum

ORPHAN_GRACE_SECONDS = 0.1  # of a child without a parent, which has to end within a second altogether
# How often a program is looked at after its grace. There is no event to wait for when a handler is changed, a
# wait of the library ends, or an exception is swallowed.
LOOK_SECONDS = 0.1


class Handler(Enum):
    """What SIGTERM does in this process."""

    OURS = "the library's handler: raises an exception in the program"
    USERS = "a handler of the program's own"
    DEFAULT = "ends the process at once, without cleanup"
    IGNORED = "nothing"


class Raised(Enum):
    """What has become of the exception that the library's handler raised last."""

    NEVER = "none was raised yet"
    ALIVE = "it is on its way through the program"
    DEAD = "it is gone"


class Act(Enum):
    """What to do now."""

    NOTHING = "leave the program alone"
    SIGNAL = "send the main thread SIGTERM"
    LAST = "write what is queued, then send SIGTERM: it ends the process"


def grace(stop_grace: float, left: float, *, orphaned: bool) -> float:
    """Return how many seconds a program may take to notice a stop that has ``left`` seconds in all.

    At most a third of them, so that enough is left for its cleanup. ``orphaned``: there is no parent any
    more.
    """
    most = min(stop_grace, left / 3)
    return min(most, ORPHAN_GRACE_SECONDS) if orphaned else most


class Ending:
    """The end of one program, step by step. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._signal_at: float | None = None
        self._users_was_called = False
        self._not_before = float("-inf")  # after a signal, until the next look

    def signal_by(self, at: float) -> None:
        """Let the grace end at this time, unless it ends earlier already."""
        if self._signal_at is None or at < self._signal_at:
            self._signal_at = at

    def next(
        self, now: float, *, runs: bool, alone: bool, handler: Handler, raised: Raised
    ) -> tuple[Act, float | None]:
        """Return what to do, and when to ask again; None: only when something else happens.

        ``runs``: the main thread is in the program, and not in a wait of the library that ends by itself.
        ``alone``: all children of this process have ended. A caller that gets SIGNAL must send it.
        """
        if self._signal_at is None:
            return Act.NOTHING, None
        if now < self._signal_at:
            return Act.NOTHING, self._signal_at
        if now < self._not_before:  # asked early, for another reason: the last signal may be on its way
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
        # With our handler it is repeated until an exception is raised: a signal just before a system call
        # does not end that call.
        self._not_before = again
        return Act.SIGNAL, again
