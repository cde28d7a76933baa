"""The exceptions that signals raise in the program, and whether they are still at work there.

Nothing here keeps such an exception alive. The code that raises one writes ``raise terminated(code)`` and
gives it no name: the traceback holds frames, and a name in one of them would hold the exception in turn.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable

from .._core.stopping import Raised

_MARK = "_ipevents_signal"
_DEEPEST = 100  # exceptions in a chain that are looked at; a chain may be a circle


class Terminated(SystemExit):
    """Raised by SIGTERM in a child. Unlike its base class it can be referred to weakly."""


_raised: Callable[[], Terminated | None] | None = None  # a weak reference to the last one


def terminated(code: int) -> Terminated:
    """A new one, to be raised at once."""
    global _raised
    exc = Terminated(code)
    _raised = weakref.ref(exc)
    return exc


def raised() -> Raised:
    """What became of the last one. From any thread."""
    if _raised is None:
        return Raised.NEVER
    return Raised.DEAD if _raised() is None else Raised.ALIVE


def marked(exc: BaseException) -> BaseException:
    """The same exception, known from now on as one that a signal raised in a top process.

    A plain KeyboardInterrupt: Python's exit status for that asks for this very class.
    """
    exc.__dict__[_MARK] = True
    return exc


def is_from_signal(exc: BaseException) -> bool:
    """Whether a signal handler of the library has raised this, for the program in the main thread."""
    kind = type(exc)
    return issubclass(kind, Terminated) or (kind in (KeyboardInterrupt, SystemExit) and _MARK in exc.__dict__)


def is_at_work() -> bool:
    """In a signal handler: whether the code below handles an exception that ``marked`` has seen.

    So it does in ``except`` and ``finally`` blocks, and in the ends of ``with`` blocks.
    """
    exc = sys.exc_info()[1]
    for _ in range(_DEEPEST):
        if exc is None:
            return False
        if type(exc) in (KeyboardInterrupt, SystemExit) and _MARK in exc.__dict__:
            return True
        exc = exc.__context__
    return False
