"""A page of memory that a child shares with its parent, who can read it however the child has ended.

A message that a child has sent may still be in its process when that is killed; what it has written here is
not lost. What stands where is in _core/page_layout.py.

Each of the two processes keeps a descriptor for the page, which ``mmap`` of Python can do without since 3.13.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any

from .._core import page_layout

__all__ = ["SIZE", "SharedPage"]

SIZE = 8 * page_layout.SLOTS  # bytes

_NAME = "ipevents-page"  # in /proc, for people
# No descriptor or no memory: a file needs them as well.
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class SharedPage:
    """The page of one process. The child writes it, the parent reads it.

    No lock: a write is one aligned store of 8 bytes. Made by ``create``; as the constructor leaves it, it is
    on memory of this process alone, and whatever is written to it reaches no other process.
    """

    _descriptors: list[int] = []  # where a signal handler raises before __init__ has begun  # noqa: RUF012

    def __init__(self) -> None:
        self._descriptors = []  # one, until the child was started
        self._slots = _private()
        self._lanes = page_layout.Lanes()

    @classmethod
    def create(cls) -> SharedPage:
        """Return a page of zeros for a child that is started next.

        It is passed to the child in the pickle of its start. After that the caller has to call
        ``close_descriptor``. Raises OSError where the system has no descriptor or no memory for it.
        """
        page = cls()
        try:
            page._open()
            page._slots = _mapped(page._descriptors[0])
        except BaseException:
            page.close()
            raise
        return page

    def _open(self) -> None:
        """Open an empty file without a name, in memory where the system has such files, and fill it."""
        # ``map`` has the number in the list before a signal handler can raise.
        memfd_create: Callable[[str, int], int] | None = getattr(os, "memfd_create", None)
        if memfd_create is not None:
            try:
                self._descriptors += map(memfd_create, (_NAME,), (os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING,))
            except OSError as exc:  # of an old kernel, or of a sandbox
                if exc.errno in _NONE_LEFT:
                    raise
        if not self._descriptors:
            import tempfile  # late: most systems do without

            with tempfile.TemporaryFile(buffering=0) as file:
                self._descriptors += map(os.dup, (file.fileno(),))
        (descriptor,) = self._descriptors
        # Written, as a file that only has this size may find no room later, which would kill the writer.
        if os.write(descriptor, bytes(SIZE)) < SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with contextlib.suppress(OSError, AttributeError):  # a file on a disk, or a system without seals
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)

    def __reduce__(self) -> tuple[Callable[[Any], SharedPage], tuple[Any]]:
        """Pass the descriptor on to the child that this thread starts. Raises RuntimeError where it does not.

        Where the child has no memory for the mapping, it gets a page of its own memory instead. It can write
        that as any other, and the parent reads zeros.
        """
        from multiprocessing import context, reduction  # late: a process without children does without

        context.assert_spawning(self)
        return _received, (reduction.DupFd(self._descriptors[0]),)

    def close_descriptor(self) -> None:
        """Close the descriptor, after the child was started. The page stays. Idempotent."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        """Let go of the page; from now on it is read as zeros. Idempotent, from any thread.

        The memory is given back when no thread reads it any more.
        """
        self.close_descriptor()
        self._slots = _private()

    __del__ = close_descriptor  # a signal handler may raise where no code would close it otherwise

    # In the child

    def lane_of(self, event: str) -> int | None:
        """Return the lane for the jobs of an event that begin in a thread of their own. From any thread.

        Returns None where all are taken. From then on the parent cannot tell, for any event without a lane of
        its own, which job has begun last.
        """
        return self._lanes.of(self._slots, event)

    def forget(self, event: str) -> None:
        """Let the parent know no more which job of an event has begun last."""
        self._lanes.forget(self._slots, event)

    def begin(self, lane: int, key: int) -> None:
        """Note that the job with this key, a number from 1 to 2**64 - 1, begins in this lane.

        Lane 0 is that of the dispatcher, all others are from ``lane_of``. Each lane is used by one thread at
        a time.
        """
        self._slots[page_layout.key_slot(lane)] = key

    # In the parent

    def begun_last(self, event: str) -> tuple[int, int] | None:
        """Return the lane in which the jobs for an event begin, and the key of the last that has begun there.

        The key is 0 where none has. Returns None where the child had too many events to tell, or has begun to
        answer this one in another way.
        """
        return page_layout.begun_last(self._slots, event)


def _received(passed: Any) -> SharedPage:
    """Return the page in the child that gets it, see ``SharedPage.__reduce__``."""
    page = SharedPage()
    descriptor = passed.detach()
    try:
        page._slots = _mapped(descriptor)
    except OSError:  # no memory; the child runs all the same
        return page
    finally:
        os.close(descriptor)
    return page


def _private() -> memoryview:
    """Return slots on memory of this process alone."""
    return memoryview(bytearray(SIZE)).cast("Q")


def _mapped(descriptor: int) -> memoryview:
    """Return the slots of the file with this descriptor, which can be closed. Raises OSError.

    They are unmapped with the last reference to them, so no reader can meet memory that is gone. Before
    Python 3.13 a mapping keeps a descriptor of its own until then.
    """
    if sys.version_info >= (3, 13):
        return memoryview(mmap.mmap(descriptor, SIZE, trackfd=False)).cast("Q")
    return memoryview(mmap.mmap(descriptor, SIZE)).cast("Q")
