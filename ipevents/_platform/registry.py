"""The emitters of this process as signals, exits and forks see them, and its role as another one's child.

Files of this folder know an emitter only by the protocol ``Emitter`` below, so that they need not import the
rooms to their left.

No lock: a signal handler reads all of this in the middle of anything. Each change is one operation on a list
or set, which other threads cannot see half done. Code that iterates over one iterates over a copy.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .latches import Latch


class Emitter(Protocol):
    """One emitter's life. All methods return at once and may be called by a signal handler."""

    stopping: Latch  # a stop was asked for
    stopped: Latch  # the stop is done
    exit: SystemExit | None  # what a listener raised to end this process

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the stop, to be done within so many seconds; None for the time that the options give."""

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment. Returns False where no thread can do that."""

    def kill_children(self) -> None:
        """KILL all children, because the process ends next."""

    def cannot_serve(self) -> bool:
        """Whether new clients are lost, because this Python starts no threads after the script's body."""

    def finish_pools(self) -> None:
        """In the exit hook: where only pools keep it open, wait for their jobs, then ask for the stop.

        Unlike the others this may block.
        """

    def abandon(self) -> None:
        """In a process made by os.fork(): let go of what is open, which belongs to the parent."""


class Child(Protocol):
    """This process as the child of the one that started it."""

    @property
    def life(self) -> Emitter:
        """The emitter that is connected to the parent."""

    def takes_no_signal(self) -> bool:
        """In the handler of SIGTERM: whether a stop is under way to which the signal adds nothing."""


_known: weakref.WeakSet[Emitter] = weakref.WeakSet()  # all that were made and still exist, for forks
_open: list[Emitter] = []  # the open ones at the top of their trees, oldest first
_child: Child | None = None


def know(emitter: Emitter) -> None:
    """Remember an emitter for as long as it exists; it is not kept alive by that."""
    _known.add(emitter)


def opened(emitter: Emitter) -> None:
    """Note that an emitter of a top process has opened. A second call changes nothing."""
    if emitter not in _open:
        _open.append(emitter)


def closed(emitter: Emitter) -> None:
    """Note that an emitter is about to be stopped, in a top process or in a child."""
    if emitter in _open:
        _open.remove(emitter)


def oldest() -> Emitter | None:
    """The emitter that has been open for the longest time; None where none is open."""
    return next(iter(_open), None)


def become_child(child: Child) -> None:
    """Note that this process serves as another one's child from now on."""
    global _child
    _child = child


def child() -> Child | None:
    """The role of this process as a child; None in a top process."""
    return _child


def is_stopping() -> bool:
    """Whether one of the open emitters was asked to stop."""
    return any(emitter.stopping.is_set() for emitter in _open)


def stop_all() -> None:
    """Ask all open emitters to stop."""
    for emitter in list(_open):
        emitter.request_stop(None)


def kill_children() -> None:
    """KILL the children of all open emitters."""
    for emitter in list(_open):
        emitter.kill_children()


def resend(number: int) -> bool:
    """Have a supervisor send the main thread this signal again. Returns False where there is none."""
    return any(emitter.resend(number) for emitter in ([_child.life] if _child else []) + _open)


def abandon_all() -> None:
    """In a process made by os.fork(): let go of all emitters and of the role, which belong to the parent."""
    global _child
    for emitter in list(_known):
        emitter.abandon()
    _open.clear()
    _child = None
