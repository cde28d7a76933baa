"""What the supervisor's thread waits for: the ends of processes, and a ring of its wakeup.

It waits on pidfds where the system has them. Sentinels and ends of files stop working once user code forks,
because the forked process has copies of them (a Pool in a worker inherits them).
"""

from __future__ import annotations

import multiprocessing
import os
import select
from collections.abc import Sequence

from .._platform.latches import Wakeup
from .._platform.threads import for_poll, is_readable
from .child_state import ChildState
from .control_channel import ControlChannel
from .pidfds import Gone, Held, open_pidfd


class Sentinels:
    """The ends of the children and of the parent.

    Used by one thread, except ``ring`` and the methods that name another.
    """

    def __init__(self) -> None:
        self._watched: dict[int, ChildState] = {}
        self._channels: dict[int, tuple[ControlChannel, int]] = {}  # by descriptor; with what is waited for
        self._parent: Held | None = None
        self._poll = select.poll()
        self._wakeup = Wakeup()
        try:
            self._poll.register(self._wakeup.fileno(), select.POLLIN)
        except BaseException:  # of a signal handler
            self._wakeup.close()
            raise

    def ring(self) -> None:
        """End the wait. May be called in any thread, and by signal handlers."""
        self._wakeup.ring()

    def add_parent(self, pid: int) -> bool:
        """Watch for the end of this process from now on. Returns False if it has ended already.

        Called before the first wait.
        """
        try:
            self._parent = open_pidfd(pid)
        except Gone:
            return False
        if self._parent is None:
            self._parent = _sentinel_of_parent(pid)
        if self._parent is not None:
            self._poll.register(self._parent.number, select.POLLIN)
        return True

    def parent_is_gone(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the end of the parent. Returns whether it has ended. In any thread.

        A dying process closes its sockets first, so other processes may see their end before it has ended
        itself.
        """
        return self._parent is not None and is_readable(self._parent.number, seconds)

    def parent_descriptor(self) -> int | None:
        """Return another descriptor for the end of the parent; None where there is none.

        The caller closes it.
        """
        return None if self._parent is None else os.dup(self._parent.number)

    def wait(
        self, alive: list[ChildState], seconds: float | None, channels: Sequence[ControlChannel] = ()
    ) -> tuple[list[ChildState], bool, list[ControlChannel]]:
        """Wait for the end of one of these children or of the parent, a channel, or a ring.

        At most ``seconds``; where that is more than the system takes, it ends earlier. Returns the children
        that have ended, whether the parent has, each end once, and the channels to be read.
        """
        self._register(channels)
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
        heard = []
        parent_ended = False
        for descriptor, happened in ready:
            if descriptor in self._channels:
                if happened & ~select.POLLOUT:
                    heard.append(self._channels[descriptor][0])
            elif self._parent is not None and descriptor == self._parent.number:
                self._poll.unregister(descriptor)
                parent_ended = True
            elif descriptor in self._watched:
                self._poll.unregister(descriptor)
                ended.append(self._watched.pop(descriptor))
        return ended, parent_ended, heard

    def _register(self, channels: Sequence[ControlChannel]) -> None:
        """Wait for these channels and no others: for what comes, and for room where something waits."""
        wanted = {}
        for channel in channels:
            if not channel.is_over:
                flags = select.POLLIN | (select.POLLOUT if channel.has_more else 0)
                wanted[channel.fileno()] = (channel, flags)
        for descriptor in self._channels.keys() - wanted.keys():
            self._poll.unregister(descriptor)
        for descriptor, (channel, flags) in wanted.items():
            if self._channels.get(descriptor) != (channel, flags):
                self._poll.register(descriptor, flags)
        self._channels = wanted

    def close(self) -> None:
        """Close the descriptors. Called by the thread that waited, when no thread will wait any more."""
        self._close_parent()
        self._wakeup.close()

    def abandon(self) -> None:
        """Close our copies of the descriptors in a process made by os.fork(), if they are still open."""
        self._wakeup.abandon()
        self._close_parent()

    def _close_parent(self) -> None:
        """Close the descriptor for the end of the parent."""
        parent, self._parent = self._parent, None
        if parent is not None:
            parent.close()


def _sentinel_of_parent(pid: int) -> Held | None:
    """Return a copy of multiprocessing's sentinel for the parent. For systems without pidfd.

    It becomes readable too late where the parent has forked by itself. None where there is no such parent.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != pid:
        return None
    return Held(os.dup(parent.sentinel))
