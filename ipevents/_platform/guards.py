"""What surrounds code that is not ours: listeners, ``repr``, unpickling, logging handlers, finalizers.

Such code may raise anything, also what is no ``Exception``. So may the system, when it has no memory or no
descriptor left, and a tool that traces or profiles the process. A thread of the library has no caller that
could handle the exception. There everything is caught and reported, and the thread goes on.
"""

from __future__ import annotations

import threading

from .._exceptions import shown
from .clock import sleep

__all__ = ["foreign", "forget_values", "patient", "told"]

FAULTS = 10  # in a row, after which a loop gives up: the trouble will not pass
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 1.0


def foreign() -> type[BaseException]:
    """What to catch around foreign code in the calling thread, written as ``except foreign():``.

    In a thread of the library everything is caught. In the main thread only an Exception is: whatever is no
    Exception there is mostly meant for the code that called the library, such as Ctrl-C, or the SystemExit of
    a signal handler that ends the program.
    """
    if threading.current_thread() is threading.main_thread():
        return Exception
    return BaseException


def told(value: object, most: int = 300) -> str:
    """A foreign value as the text of an error shows it, whatever its ``repr`` raises. From any thread."""
    try:
        return shown(value, most)
    except foreign():  # its repr raised something that is no Exception, in a thread of the library
        return "<a value that cannot be shown>"


def patient(faults: int) -> bool:
    """Wait for a moment after the ``faults``-th fault in a row of a loop; returns whether it may go on.

    The system may have memory or descriptors again a little later. The caller holds no lock.
    """
    if faults >= FAULTS:
        return False
    sleep(min(_FIRST_PAUSE_SECONDS * 2 ** (faults - 1), _LONGEST_PAUSE_SECONDS))
    return True


def forget_values(exc: BaseException) -> None:
    """Let the frames of an exception's traceback forget their local variables, which stay as long as it does.

    Files, lines and names stay. A frame that still runs keeps its variables.
    """
    step = exc.__traceback__
    while step is not None:
        try:
            step.tb_frame.clear()
        except RuntimeError:  # it still runs
            pass
        step = step.tb_next
