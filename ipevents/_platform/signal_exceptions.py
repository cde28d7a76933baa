"""The exceptions that signals raise in the program, and whether the program still handles one.

Nothing here keeps such an exception alive. Code that raises one writes ``raise terminated(code)`` and binds
it to no name: the traceback refers to the frames, and a name in one of those would refer to the exception in
turn.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable

from .._core.stopping import Raised

_MARK = "_ipevents_signal"
_DEEPEST = 100  # most exceptions of a chain that are looked at, as a chain may be a circle


class Terminated(SystemExit):
    """What SIGTERM raises in a child. Unlike its base class it supports weak references."""


_raised: Callable[[], Terminated | None] | None = None  # a weak reference to the last Terminated


def terminated(code: int) -> Terminated:
    """A new exception, which the caller raises at once."""
    global _raised
    exc = Terminated(code)
    _raised = weakref.ref(exc)
    return exc


def raised() -> Raised:
    """What became of the last ``Terminated``: never raised, still referred to, or gone. From any thread."""
    if _raised is None:
        return Raised.NEVER
    return Raised.DEAD if _raised() is None else Raised.ALIVE


def marked(exc: BaseException) -> BaseException:
    """The same exception, marked as one that a signal raised in a top process.

    KeyboardInterrupt gets a mark and not a subclass, because Python's exit status for it requires this very
    class.
    """
    exc.__dict__[_MARK] = True
    return exc


def is_from_signal(exc: BaseException) -> bool:
    """Whether a signal handler of the library has raised this in the program."""
    kind = type(exc)
    return issubclass(kind, Terminated) or (kind in (KeyboardInterrupt, SystemExit) and _MARK in exc.__dict__)


def interrupts_main(exc: BaseException) -> bool:
    """Whether code of the user has let an exception through that concerns the main thread, which runs it.

    That is Ctrl-C, and what a signal handler of the library has raised. In every other thread it is False.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and (issubclass(type(exc), KeyboardInterrupt) or is_from_signal(exc))


def is_at_work() -> bool:
    """In a signal handler: whether the interrupted code is handling an exception marked by ``marked``.

    Code does so in ``except`` and ``finally`` blocks, and when it leaves a ``with`` block.
    """
    exc = sys.exc_info()[1]
    for _ in range(_DEEPEST):
        if exc is None:
            return False
        if type(exc) in (KeyboardInterrupt, SystemExit) and _MARK in exc.__dict__:
            return True
        exc = exc.__context__
    return False
