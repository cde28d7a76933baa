"""The descriptors 0, 1 and 2, which belong to the standard streams also where they are closed."""

from __future__ import annotations

import contextlib
import os


def occupy() -> None:
    """Open ``/dev/null`` where one of them is closed, as a daemon does; called before we open anything.

    Without that a link would get such a number, and what a program that the user starts writes to its stdout
    would go to another process of the tree.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # no /dev/null, no descriptor: then it is as it was
                opened = os.open(os.devnull, os.O_RDWR)
                if opened == number:
                    os.set_inheritable(opened, True)
                else:  # another thread was faster
                    os.close(opened)
