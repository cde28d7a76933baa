"""What this process is in the tree: the top, or the child of the process that started it.

The supervisor, the start and the stop call a Role instead of testing for a parent. ``TopRole`` is the role of
a process that a user started, ``ChildRole`` in ``_lifecycle/child_main.py`` of one that another process
started. A process has one role for its whole life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._core.messages import Record
from .._platform.threads import Deadline
from .control_channel import ControlChannel

HUNG_EXITCODE = 1  # of a child whose main thread could not be brought to its end


class Upward(Protocol):
    """The control channel to the parent, and what is said over it. In the supervisor's thread."""

    channel: ControlChannel

    def look(self) -> None:
        """Tell the parent what it waits for. Called each time the thread wakes."""

    def answers_no_more(self) -> None:
        """Tell the parent that this process stops, and answers nothing."""


class Role(Protocol):
    """What the rest asks and announces to a role. Called in any thread, where the docstring names none."""

    is_child: bool
    up: Upward | None  # the control channel to the parent
    orphaned: bool  # the parent is gone, or has cut the link off
    ends_at_once: bool  # set by hurry(): its last signal ends this process, so all else has to come first

    def report(self, record: Record) -> None:
        """Send a control record to the parent. Signal handlers may call it."""

    def parent_ended(self) -> None:
        """Note that the parent's process has ended. In the supervisor's thread."""

    def look_again(self) -> None:
        """Check again whether anything keeps this process. Signal handlers may call it.

        A stop was asked for, or a child or the last listener of an event is gone.
        """

    # The stop, in this order

    def before_stop(self, waits: bool) -> None:
        """Note that the user's code calls ``stop()`` in this thread; ``waits`` if it waits for the end."""

    def wait_stop(self, timeout: float | None) -> bool:
        """Wait for ``run()``, as long as it has to, at most ``timeout`` seconds.

        Returns whether the end has come.
        """

    def has_left(self) -> bool:
        """Return whether a stop need not wait for the main thread (any more)."""

    def hurry(self, deadline: Deadline, *, alone: bool) -> float | None:
        """Bring the main thread to the end of its program. Returns when to call this again.

        Called in the supervisor's thread, again and again during a stop; ``alone``: all children of this
        process have ended. None stands for not before something else happens.
        """

    def wait_target(self, deadline: Deadline) -> None:
        """Wait until the main thread has left its program. May end the process.

        In the supervisor's thread, when all children have ended.
        """

    def last_steps(self) -> None:
        """Do what comes after links and threads have ended. In the supervisor's thread."""

    # Forks

    def abandon(self) -> None:
        """Give our copies of the descriptors back in a process made by os.fork()."""


class TopRole:
    """The role of a process that no process of the tree has started: no parent to report to or to wait for.

    ``wait_end(timeout)`` waits for the end of a stop, which is what ``run()`` waits for here.
    """

    is_child = False
    up: Upward | None = None
    orphaned = False
    ends_at_once = False

    def __init__(self, wait_end: Callable[[float | None], bool]) -> None:
        self._wait_end = wait_end

    def report(self, record: Record) -> None:
        pass

    def parent_ended(self) -> None:
        pass

    def look_again(self) -> None:
        pass

    def before_stop(self, waits: bool) -> None:
        pass

    def wait_stop(self, timeout: float | None) -> bool:
        return self._wait_end(timeout)

    def has_left(self) -> bool:
        return True

    def hurry(self, deadline: Deadline, *, alone: bool) -> float | None:
        return None

    def wait_target(self, deadline: Deadline) -> None:
        pass

    def last_steps(self) -> None:
        pass

    def abandon(self) -> None:
        pass
