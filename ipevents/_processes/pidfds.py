"""Descriptors for processes: they become readable at the end, and stand for no other process after it."""

from __future__ import annotations

import errno
import os


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor for a process, or None where the system has none. Raises ProcessLookupError."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            return None
        raise


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
