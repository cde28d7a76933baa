"""Waits that a signal may enter, and what ends them: latches, rings, locks that the user's code holds.

A handler of a signal runs in the middle of anything, also of what is here, and may raise there or set the
latch that it has interrupted. Which locks there are, and in which order a thread takes them: ``threads.py``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from _thread import allocate_lock, get_ident
from collections.abc import Callable

from .interruptible import interruptible
from .threads import Deadline, for_lock, for_poll, main_ident


@interruptible
def acquire_from_user(lock: threading.RLock) -> None:
    """Acquire a lock that another thread may hold for as long as the user's code likes.

    Not for a thread that owns it already: where a signal handler raises in here, the caller does not hold it.
    """
    try:
        lock.acquire()
    except BaseException:  # of a signal handler, perhaps just after the acquisition
        let_go(lock)
        raise


def let_go(lock: threading.RLock) -> None:
    """Release a lock that the calling thread holds once or not at all."""
    with contextlib.suppress(RuntimeError):  # not held
        lock.release()


class Wakeup:
    """Interrupts a thread that waits on descriptors. ``ring`` may be called by a signal handler."""

    RING = b"\x00"  # the number of no signal

    def __init__(self) -> None:
        # Guards the life of the writing descriptor: no ring is written to a number that is another file's by
        # now. Only ``close`` waits for this lock. An RLock, because that knows its owner.
        self._lock = threading.RLock()
        self._wanted = False  # a ring was asked for since the last one
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        """Wake the waiter; never blocks, and waits for no lock. After ``close`` it does nothing."""
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # called within itself, see the top of threads.py
            self._write()
            return
        self._wanted = True
        try:
            # A thread that finds the lock taken leaves the ring to its owner, which looks again afterwards.
            while self._wanted and lock.acquire(False):
                self._wanted = False
                self._write()
                lock.release()
        except BaseException:  # of a signal handler, anywhere in there
            let_go(lock)
            self.ring()  # perhaps a second time, which does no harm
            raise

    def _write(self) -> None:
        if self._writer >= 0:
            with contextlib.suppress(BlockingIOError):  # full: a ring waits already
                os.write(self._writer, self.RING)

    def writer(self) -> int:
        """The descriptor that rings when anything is written to it."""
        return self._writer

    def clear(self) -> bytes:
        """Forget the rings so far; called by the waiter before it looks at what it is woken for.

        Returns what was written, RING for each ring.
        """
        written = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reader, 4096):
                written += part
        return written

    def close(self) -> None:
        """Give the descriptors back; called by the owner when no thread waits any more."""
        with self._lock:
            reader, writer = self._reader, self._writer
            self._reader = self._writer = -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)

    def abandon(self) -> None:
        """In a process made by os.fork(): close our copies of the descriptors.

        Not under the lock that was there: a thread that held it, ringing, is not in this process.
        """
        self._lock = threading.RLock()
        self.close()


class MainBell:
    """Ends the waits of the main thread, which is the one that runs signal handlers.

    CPython blocks in a lock although a signal came, if that was between its last look and the system
    call; so here the main thread polls a descriptor, to which every signal writes as well
    (``signal.set_wakeup_fd``). If that was somebody else's, it is given back after the wait, and the signals
    that came meanwhile are written there as well.
    """

    def __init__(self) -> None:
        self.is_waited_for = False
        self._wakeup: Wakeup | None = None  # made with the first wait

    def ring(self) -> None:
        """Have the main thread look again at what it waits for. Never blocks."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.ring()

    @interruptible
    def wait(self, is_over: Callable[[], bool], deadline: Deadline) -> None:
        """In the main thread: block until ``is_over()`` after a ring, or until the deadline.

        A signal handler may raise in here.
        """
        if self._wakeup is None:
            self._wakeup = Wakeup()
        wakeup = self._wakeup
        poll = select.poll()
        poll.register(wakeup.fileno(), select.POLLIN)
        outer = self.is_waited_for  # a signal handler may wait in the middle of a wait
        others = wakeup.writer()
        try:
            others = signal.set_wakeup_fd(wakeup.writer(), warn_on_full_buffer=False)
            self.is_waited_for = True  # from here on, the thread that makes it over rings
            while not is_over() and not deadline.passed():
                left = deadline.left()
                poll.poll(for_poll(left))
                signals = wakeup.clear().replace(Wakeup.RING, b"")
                if signals and others >= 0 and not outer:
                    with contextlib.suppress(OSError):
                        os.write(others, signals)
        finally:
            self.is_waited_for = outer
            if outer:
                wakeup.ring()  # the outer wait may have lost its ring to this one
            with contextlib.suppress(ValueError, OSError):  # its owner has closed it meanwhile
                signal.set_wakeup_fd(others, warn_on_full_buffer=False)

    def forget(self) -> None:
        """In a process made by os.fork(): the descriptors are shared with the parent."""
        if self.is_waited_for:  # the fork was made by a signal handler, in the middle of a wait
            with contextlib.suppress(ValueError):
                signal.set_wakeup_fd(-1)
            self.is_waited_for = False
        if self._wakeup is not None:
            self._wakeup.abandon()
            self._wakeup = None


_main_bell = MainBell()
forget_main_bell = _main_bell.forget


def main_waits() -> bool:
    """Whether the main thread is in a wait of the library."""
    return _main_bell.is_waited_for


class Latch:
    """Set once, waited for by any number of threads.

    Unlike ``threading.Event`` it can be set by a signal handler that interrupts a waiter in the same thread:
    it is one lock, released for good.
    """

    __slots__ = ("_is_set", "_lock")

    def __init__(self) -> None:
        self._is_set = False
        self._lock = allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let all waiters go; further calls do nothing. Never blocks."""
        if not self._is_set:
            self._is_set = True
            with contextlib.suppress(RuntimeError):  # two threads set it at once
                self._lock.release()
            if _main_bell.is_waited_for:
                _main_bell.ring()

    def is_set(self) -> bool:
        return self._is_set

    @interruptible
    def wait(self, timeout: float | None = None) -> bool:
        """Block until set, at most ``timeout`` seconds; returns whether it is set.

        A signal handler may raise in here.
        """
        if self.is_set():
            return True
        if get_ident() == main_ident():
            _main_bell.wait(self.is_set, Deadline(timeout))
            return self.is_set()
        try:
            self._lock.acquire(timeout=-1 if timeout is None else max(0.0, for_lock(timeout)))
        finally:  # a turnstile, also when a signal handler raises here: open for the next waiter
            if self.is_set():
                with contextlib.suppress(RuntimeError):
                    self._lock.release()
        return self.is_set()
