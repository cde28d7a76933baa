"""The descriptors 0, 1 and 2, which belong to the standard streams even while they are closed."""

from __future__ import annotations

import contextlib
import os


def occupy() -> None:
    """Open ``/dev/null`` at each of the three that is closed, as in a daemon; called before we open anything.

    Without that a socket of ours could get such a number. A program that the user starts would then write its
    stdout to another process of the tree.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # no /dev/null or no descriptor: it stays closed
                opened = os.open(os.devnull, os.O_RDWR)
                if opened == number:
                    os.set_inheritable(opened, True)
                else:  # another thread has taken the number first
                    os.close(opened)
