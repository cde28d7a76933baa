"""What surrounds code that is not ours: listeners, ``repr``, unpickling, logging handlers, finalizers.

Such code raises what it likes, also what is no ``Exception``, and so does the system (no memory, no
descriptor) and whatever traces or profiles the process. In a thread of the library nobody is there to be told
by an exception: there everything is caught and reported, and the thread goes on.
"""

from __future__ import annotations

import threading
import time

from .._exceptions import shown
from .interrupts import is_from_signal

__all__ = ["foreign", "let_through", "patient", "told"]

FAULTS = 10  # of a loop in a row, after which it gives up: what is wrong does not pass
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 1.0


def foreign() -> type[BaseException] | tuple[type[BaseException], ...]:
    """What to catch around foreign code, as in ``except foreign():``, in the calling thread.

    Everything; but in the main thread not Ctrl-C, which is for the code that called the library.
    """
    if threading.current_thread() is threading.main_thread():
        return (Exception, SystemExit, GeneratorExit)
    return BaseException


def let_through(exc: BaseException) -> None:
    """After ``except foreign()``: raise it again if a signal has raised it, for the program and not for
    us."""
    if is_from_signal(exc):
        raise exc


def told(value: object, most: int = 300) -> str:
    """A foreign value as the text of an error shows it, whatever its ``repr`` does, in any thread."""
    try:
        return shown(value, most)
    except foreign() as exc:  # a KeyboardInterrupt out of its repr, in a thread of the library
        let_through(exc)
        return "<a value that cannot be shown>"


def patient(faults: int) -> bool:
    """After so many faults in a row of one loop: wait for a moment, and tell whether it may go on.

    The system may have memory or descriptors again a little later. No lock is held.
    """
    if faults >= FAULTS:
        return False
    time.sleep(min(_FIRST_PAUSE_SECONDS * 2 ** (faults - 1), _LONGEST_PAUSE_SECONDS))
    return True
