"""What this process is in the tree: the top, or the child of the process that started it.

The supervisor, the start and the stop ask a Role instead of testing for a parent. ``TopRole`` answers for a
process that a user started, ``ChildRole`` in ``_lifecycle/child_main.py`` for one that another process
started. A process has one role for its whole life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._core.messages import Record
from .._links.link import Link
from .._platform.threads import Deadline


class Role(Protocol):
    """The questions, and what is announced to the role. In any thread, where nothing else is said."""

    is_child: bool
    link: Link | None  # to the parent, once it is connected
    orphaned: bool  # the parent is gone, or has cut the link off
    ends_at_once: bool  # after hurry(): the last signal ends this process, so all else has to come first

    def control(self, record: Record) -> None:
        """The parent has sent this control record. In the reader of ``link``."""

    def report(self, record: Record) -> None:
        """Send a control record to the parent. Also for signal handlers."""

    def parent_ended(self) -> None:
        """The parent's process has ended. In the supervisor's thread."""

    def look_again(self) -> None:
        """Perhaps nothing keeps this process any more: a stop was asked for, or a child or the last listener
        of an event is gone. Also for signal handlers."""

    # The stop, in this order

    def before_stop(self, waits: bool) -> None:
        """The user's code calls ``stop()`` in this thread; ``waits`` if that call waits for the end."""

    def wait_stop(self, timeout: float | None) -> bool:
        """For ``run()``: wait as long as it has to, at most ``timeout`` seconds. Whether that came."""

    def has_left(self) -> bool:
        """Whether a stop need not wait for the main thread (any more)."""

    def hurry(self, deadline: Deadline, *, alone: bool) -> float | None:
        """In the supervisor's thread, again and again during a stop: bring the main thread to the end of its
        program. ``alone``: all children of this process have ended. Returns when to call this again, None for
        not before something else happens."""

    def wait_target(self, deadline: Deadline) -> None:
        """In the supervisor's thread, when all children have ended: wait until the main thread has left its
        program. May end the process."""

    def last_steps(self) -> None:
        """In the supervisor's thread, when links and threads have ended."""

    # Forks

    def abandon(self) -> None:
        """In a process made by os.fork(): give our copies of the descriptors back."""


class TopRole:
    """The role of a process that nobody of the tree has started: no parent, and a main thread of its own.

    ``wait_end(timeout)`` waits for the end of a stop: what ``run()`` waits for here.
    """

    is_child = False
    orphaned = False
    ends_at_once = False

    def __init__(self, wait_end: Callable[[float | None], bool]) -> None:
        self.link: Link | None = None
        self._wait_end = wait_end

    def control(self, record: Record) -> None:
        pass

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
