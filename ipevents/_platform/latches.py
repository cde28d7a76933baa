"""Waits during which a signal handler may run, and what ends them: latches, rings, locks held by user code.

A signal handler runs in the middle of anything, also of the code in this file. It may raise an exception
there, or set the very latch whose wait it has interrupted. ``threads.py`` lists all locks of the package and
the order in which a thread takes them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import threading
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from typing import Protocol

from .interruptible import interruptible
from .threads import Deadline, for_lock, for_poll, main_ident


class SupportsFileno(Protocol):
    """What has a descriptor."""

    def fileno(self) -> int: ...


SIGNAL_SECONDS = 0.25  # how late a signal may take effect where it came just before a wait for a lock
BRIEF_SECONDS = 0.05  # the same, for waits that are mostly over by then


@interruptible
def acquire_from_user(lock: threading.RLock) -> None:
    """Acquire a lock that another thread may hold for as long as the user's code likes.

    A signal handler may raise in here; then the caller does not hold the lock. Not for a thread that holds it
    already, because the cleanup would release that hold.

    The main thread looks at its signals now and then, see ``MainBell``: a lock has no descriptor to poll.
    """
    seconds = SIGNAL_SECONDS if get_ident() == main_ident() else -1.0
    try:
        while not lock.acquire(timeout=seconds):
            continue
    except BaseException:  # of a signal handler, perhaps just after the acquisition
        let_go(lock)
        raise


def let_go(lock: threading.RLock) -> None:
    """Release a lock that the calling thread holds once or not at all."""
    with contextlib.suppress(RuntimeError):  # not held
        lock.release()


class Wakeup:
    """Wakes a thread that polls descriptors: a pipe to which ``ring`` writes a byte.

    ``ring`` may be called in a signal handler and while its own thread is in ``ring``.
    """

    RING = b"\x00"  # the number of no signal

    def __init__(self) -> None:
        # Guards the life of the writing descriptor: after close() its number may belong to another file, and
        # no ring may be written there. Only ``close`` waits for this lock. An RLock knows its owner.
        self._lock = threading.RLock()
        self._wanted = False  # a ring was asked for and not written yet
        ends: list[tuple[int, int]] = []
        try:
            ends += itertools.starmap(os.pipe, ((),))  # stored before a signal handler can raise
            for end in ends[0]:
                os.set_blocking(end, False)
        except BaseException:
            for end in itertools.chain(*ends):
                os.close(end)
            raise
        self._reader, self._writer = ends[0]

    def fileno(self) -> int:
        """The descriptor that the waiting thread polls: readable when it has been rung."""
        return self._reader

    def ring(self) -> None:
        """Wake the waiting thread. Never blocks and waits for no lock; after ``close`` it does nothing.

        If another thread holds the lock, that thread writes the ring: it looks at ``_wanted`` again after its
        release.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # ring() within ring(), see threads.py
            self._write()
            return
        self._wanted = True
        try:
            # A thread that finds the lock taken leaves the ring to its owner, which asks _wanted once more.
            while self._wanted and lock.acquire(False):
                self._wanted = False
                self._write()
                lock.release()
        except BaseException:  # a signal handler raised, at any place above
            let_go(lock)
            self.ring()  # perhaps a second ring, which does no harm
            raise

    def _write(self) -> None:
        """Write a ring into the pipe. The caller holds the lock."""
        if self._writer >= 0:
            with contextlib.suppress(BlockingIOError):  # the pipe is full, so a ring is waiting already
                os.write(self._writer, self.RING)

    def writer(self) -> int:
        """The descriptor that rings when anything is written to it."""
        return self._writer

    def clear(self) -> bytes:
        """Read and forget all rings so far; returns what was written, RING for each ring.

        The waiting thread calls it before it looks at what it was woken for, so a later ring is not lost.
        """
        written = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reader, 4096):
                written += part
        return written

    def close(self) -> None:
        """Close the descriptors; called by the owner when no thread waits any more."""
        with self._lock:
            reader, writer = self._reader, self._writer
            self._reader = self._writer = -1
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)

    def abandon(self) -> None:
        """In a process made by os.fork(): close our copies of the descriptors.

        The lock is replaced first: a thread that held it during the fork does not exist in this process.
        """
        self._lock = threading.RLock()
        self.close()


class MainBell:
    """Ends the waits of the main thread, which is the one that runs signal handlers.

    CPython may block in a lock or a socket although a signal has come, if the signal came between its last
    check and the system call. Therefore the main thread polls a descriptor instead, to which each signal
    writes a byte (``signal.set_wakeup_fd``).

    If the program has set a wakeup descriptor of its own, that is set again after the wait, and the signals
    that came meanwhile are written to it as well.
    """

    def __init__(self) -> None:
        self.is_waited_for = False
        # What the main thread waits for; None while that is a socket, or nothing.
        self.latch: Latch | None = None
        self._wakeup: Wakeup | None = None  # made with the first wait

    def ring(self) -> None:
        """Have the main thread check again what it waits for. Never blocks."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.ring()

    @interruptible
    def wait(
        self,
        is_over: Callable[[], bool],
        deadline: Deadline,
        *watched: tuple[SupportsFileno, int],
        latch: Latch | None = None,
    ) -> None:
        """In the main thread: block until ``is_over()`` is true, or until the deadline.

        It is asked after each ring, and when one of ``watched`` is ready: things to poll, with their events.
        ``latch`` is the one that it asks for.

        A signal handler may raise in here.
        """
        if self._wakeup is None:
            self._wakeup = Wakeup()
        wakeup = self._wakeup
        poll = select.poll()
        poll.register(wakeup.fileno(), select.POLLIN)
        for item, events in watched:
            poll.register(item, events)
        outer, outer_latch = self.is_waited_for, self.latch  # a signal handler may wait within a wait
        others = wakeup.writer()
        try:
            others = signal.set_wakeup_fd(wakeup.writer(), warn_on_full_buffer=False)
            self.latch = latch
            self.is_waited_for = True  # from here on the thread that makes is_over() true rings
            while not is_over() and not deadline.passed():
                left = deadline.left()
                poll.poll(for_poll(left))
                signals = wakeup.clear().replace(Wakeup.RING, b"")
                if signals and others >= 0 and not outer:
                    with contextlib.suppress(OSError):
                        os.write(others, signals)
        finally:
            self.is_waited_for, self.latch = outer, outer_latch
            if outer:
                wakeup.ring()  # this wait may have read the ring of the outer one
            with contextlib.suppress(ValueError, OSError):  # the program has closed its descriptor meanwhile
                signal.set_wakeup_fd(others, warn_on_full_buffer=False)

    def forget(self) -> None:
        """In a process made by os.fork(): let go of the descriptors, which are shared with the parent."""
        if self.is_waited_for:  # a signal handler forked in the middle of a wait
            with contextlib.suppress(ValueError):
                signal.set_wakeup_fd(-1)
            self.is_waited_for, self.latch = False, None
        if self._wakeup is not None:
            self._wakeup.abandon()
            self._wakeup = None


_main_bell = MainBell()
forget_main_bell = _main_bell.forget


def main_waits_for() -> Latch | None:
    """The latch for which the main thread waits at the moment, None where it does not."""
    return _main_bell.latch


@interruptible
def wait_ready(item: SupportsFileno, events: int, seconds: float | None) -> bool:
    """Wait at most so long until a socket, say, is ready for ``events``; returns whether it is.

    A signal handler may raise in here.
    """
    poll = select.poll()
    poll.register(item, events)
    if get_ident() != main_ident():
        return bool(poll.poll(for_poll(seconds)))
    _main_bell.wait(lambda: bool(poll.poll(0)), Deadline(seconds), (item, events))
    return bool(poll.poll(0))


class Latch:
    """A flag that is set once, and that any number of threads may wait for.

    Unlike ``threading.Event`` it may be set by a signal handler that interrupts a waiter in the same thread.
    It is a plain lock, held from the beginning and released for good by ``set``; no thread owns it.
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
    def wait_briefly(self) -> bool:
        """Block until the latch is set, at most BRIEF_SECONDS; returns whether it is set.

        In the main thread this is faster than ``wait``, for what comes in a moment. A signal that arrives
        just before the system call is only noticed after it, so there the wait has to be brief. A signal
        handler may raise in here.
        """
        if not self.is_set():
            try:
                self._lock.acquire(timeout=BRIEF_SECONDS)
            finally:  # as in wait()
                if self.is_set():
                    with contextlib.suppress(RuntimeError):
                        self._lock.release()
        return self.is_set()

    @interruptible
    def wait(self, timeout: float | None = None) -> bool:
        """Block until the latch is set, at most ``timeout`` seconds; returns whether it is set.

        A signal handler may raise in here.
        """
        if self.is_set():
            return True
        if get_ident() == main_ident():
            _main_bell.wait(self.is_set, Deadline(timeout), latch=self)
            return self.is_set()
        try:
            self._lock.acquire(timeout=-1 if timeout is None else max(0.0, for_lock(timeout)))
        finally:  # also if a handler raised: release the lock for the next waiter
            if self.is_set():
                with contextlib.suppress(RuntimeError):
                    self._lock.release()
        return self.is_set()
