"""What the supervisor's thread waits for: the ends of processes, and whatever rings its wakeup.

It waits on process descriptors: sentinels and ends of files are blind once user code forks (a Pool in
a worker inherits them), a pidfd is not.
"""

from __future__ import annotations

import multiprocessing
import os
import select

from .._platform.latches import Wakeup
from .._platform.threads import for_poll
from .child_state import ChildState
from .process import open_pidfd


class Sentinels:
    """The ends of the children and of the parent. Used by one thread, except for ``ring`` and where said."""

    def __init__(self) -> None:
        self._wakeup = Wakeup()
        self._poll = select.poll()
        self._poll.register(self._wakeup.fileno(), select.POLLIN)
        self._watched: dict[int, ChildState] = {}
        self._parent_fd: int | None = None

    def ring(self) -> None:
        """End the wait. From any thread, also for signal handlers."""
        self._wakeup.ring()

    def add_parent(self, pid: int) -> bool:
        """Before the first wait: notice the end of this process. Returns False if it has ended already."""
        try:
            self._parent_fd = open_pidfd(pid)
        except ProcessLookupError:
            return False
        if self._parent_fd is None:
            self._parent_fd = _sentinel_of_parent(pid)
        if self._parent_fd is not None:
            self._poll.register(self._parent_fd, select.POLLIN)
        return True

    def parent_is_gone(self, seconds: float) -> bool:
        """Whether the process that ``add_parent`` was told of ends within that time. From any thread.

        A dying process closes its sockets first: others may see their end before it has ended itself.
        """
        if self._parent_fd is None:
            return False
        poll = select.poll()
        poll.register(self._parent_fd, select.POLLIN)
        return bool(poll.poll(for_poll(seconds)))

    def parent_descriptor(self) -> int | None:
        """Another descriptor that tells the end of the parent, the caller's own; None where there is none."""
        return None if self._parent_fd is None else os.dup(self._parent_fd)

    def wait(self, alive: list[ChildState], seconds: float | None) -> tuple[list[ChildState], bool]:
        """Wait for the end of one of these children or of the parent, or for a ring.

        At most so many seconds; where these are more than the system takes, it ends before its time. Returns
        the children that have ended, and whether the parent has. Each end is told once.
        """
        for child in alive:
            process = child.process
            if process is None:
                continue
            descriptor = process.fileno()
            if self._watched.get(descriptor) is not child:
                self._watched[descriptor] = child
                self._poll.register(descriptor, select.POLLIN)
        ready = self._poll.poll(for_poll(seconds))
        self._wakeup.clear()
        ended = []
        parent_ended = False
        for descriptor, _ in ready:
            if descriptor == self._parent_fd:
                self._poll.unregister(descriptor)
                parent_ended = True
            elif descriptor in self._watched:
                self._poll.unregister(descriptor)
                ended.append(self._watched.pop(descriptor))
        return ended, parent_ended

    def close(self) -> None:
        """Give the descriptors back; called by the thread that waited, when nobody will any more."""
        if self._parent_fd is not None:
            os.close(self._parent_fd)
        self._wakeup.close()

    def abandon(self) -> None:
        """In a process made by os.fork(): close our copies of the descriptors."""
        self._wakeup.abandon()
        if self._parent_fd is not None:
            os.close(self._parent_fd)


def _sentinel_of_parent(pid: int) -> int | None:
    """What multiprocessing has in place of a pidfd; late, where the parent has forked by itself."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != pid:
        return None
    return os.dup(parent.sentinel)
