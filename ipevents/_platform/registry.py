"""The emitters of this process, as signals, exits and forks see them, and its role as a child of another one.

Here and in the other files of this folder an emitter is what ``Emitter`` below asks for, so that nothing here
imports the rooms to its left.

No lock: a handler of a signal reads all of this in the middle of anything. Each change is one operation on a
list or set, which threads do not see half done; whoever goes through them takes a copy.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .latches import Latch


class Emitter(Protocol):
    """The life of one emitter. All methods return at once, and may be called by a handler of a signal."""

    stopping: Latch  # a stop was asked for
    stopped: Latch  # and is done
    exit: SystemExit | None  # what a listener ended this process with

    def request_stop(self, seconds: float | None) -> None:
        """Ask for the end, in so many seconds; None for what the options say."""

    def resend(self, number: int) -> bool:
        """Send the main thread this signal again in a moment. Returns False where no thread does that."""

    def kill_children(self) -> None:
        """KILL all children: the process ends next."""

    def cannot_serve(self) -> bool:
        """Whether new clients are lost, because this Python starts no threads after the script's body."""

    def abandon(self) -> None:
        """In a process made by os.fork(): what is open belongs to the parent."""


class Child(Protocol):
    """This process as the child of the one that started it."""

    @property
    def life(self) -> Emitter:
        """The emitter that is connected to the parent."""

    def takes_no_signal(self) -> bool:
        """In the handler of SIGTERM: whether a stop is under way to which this signal adds nothing."""


_known: weakref.WeakSet[Emitter] = weakref.WeakSet()  # all that were made, for forks
_open: list[Emitter] = []  # the open ones of a top process, oldest first
_child: Child | None = None


def know(emitter: Emitter) -> None:
    """Remember an emitter for as long as it lives, from its making on."""
    _known.add(emitter)


def opened(emitter: Emitter) -> None:
    """An emitter of a top process has opened."""
    _open.append(emitter)


def closed(emitter: Emitter) -> None:
    """An emitter is about to be stopped, in whatever process."""
    if emitter in _open:
        _open.remove(emitter)


def oldest() -> Emitter | None:
    """The one that is open for the longest time; None where none is open."""
    return next(iter(_open), None)


def become_child(child: Child) -> None:
    """This process serves as somebody's child from now on."""
    global _child
    _child = child


def child() -> Child | None:
    """This process's role as a child; None in a top process."""
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
    """In a process made by os.fork(): whatever is open belongs to the parent, and so does its role."""
    global _child
    for emitter in list(_known):
        emitter.abandon()
    _open.clear()
    _child = None
