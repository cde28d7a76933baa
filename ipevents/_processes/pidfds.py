"""Descriptors for processes: they become readable at the end, and stand for no other process after it."""

from __future__ import annotations

import errno
import os

_NO_PIDFDS = (errno.ENOSYS, errno.EPERM, errno.EINVAL)  # of an old kernel, or of a sandbox


class Held:
    """A descriptor that is closed with its object, at the latest.

    A signal handler may raise where no code would close it otherwise.
    """

    number = -1  # where a handler raises before __init__ has begun

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close it, once."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class Gone(ProcessLookupError):
    """There is no such process any more: it has ended and was reaped."""


def open_pidfd(pid: int) -> Held | None:
    """Return a descriptor for a process, or None where the system has none. Raises Gone, and OSError."""
    pidfd_open = getattr(os, "pidfd_open", None)
    if pidfd_open is None:
        return None
    # ``map`` has both in their lists before a signal handler can raise.
    numbers: list[int] = []
    held: list[Held] = []
    try:
        numbers += map(pidfd_open, (pid,))
        held += map(Held, numbers)
        return held[0]
    except BaseException as exc:
        if not held:  # of a signal handler, where there is a number: no other code knows it
            for number in numbers:
                os.close(number)
        if isinstance(exc, OSError) and not numbers:
            if exc.errno in _NO_PIDFDS:
                return None
            if exc.errno == errno.ESRCH:
                raise Gone(*exc.args) from None
        raise
