"""What surrounds code that is not ours: listeners, ``repr``, unpickling, logging handlers, finalizers.

Such code raises what it likes, also what is no ``Exception``, and so does the system (no memory, no
descriptor) and whatever traces or profiles the process. In a thread of the library no caller is there to get
the exception: there everything is caught and reported, and the thread goes on.
"""

from __future__ import annotations

import threading

from .._exceptions import shown
from .clock import sleep

__all__ = ["foreign", "patient", "told"]

FAULTS = 10  # of a loop in a row, after which it gives up: what is wrong does not pass
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 1.0


def foreign() -> type[BaseException]:
    """What to catch around foreign code, as in ``except foreign():``, in the calling thread.

    Everything, but in the main thread only Exceptions. Whatever is no Exception there is mostly meant for the
    code that called the library: Ctrl-C, and the SystemExit of a signal handler that ends the program.
    """
    if threading.current_thread() is threading.main_thread():
        return Exception
    return BaseException


def told(value: object, most: int = 300) -> str:
    """A foreign value as the text of an error shows it, whatever its ``repr`` does, in any thread."""
    try:
        return shown(value, most)
    except foreign():  # what is no Exception, out of its repr in a thread of the library
        return "<a value that cannot be shown>"


def patient(faults: int) -> bool:
    """After so many faults in a row of one loop: wait for a moment; returns whether it may go on.

    The system may have memory or descriptors again a little later. No lock is held.
    """
    if faults >= FAULTS:
        return False
    sleep(min(_FIRST_PAUSE_SECONDS * 2 ** (faults - 1), _LONGEST_PAUSE_SECONDS))
    return True
