"""Small things that threads share: deadlines, latches, a wakeup with a descriptor, named threads.

Locks of the whole package, and the order in which a thread may take them (each only while it holds none
that stands below it):

1. ``Opening._starting``: one way through ``start``. May wait for the next.
2. ``Floor.lock``: one listener at a time in a process. Held while code of the user runs.
3. ``Opening.building``: the steps between two states. Waits for the start of threads only.
4. the state lock, ``Node.lock``. Nothing is logged, no listener called, nothing waited for under it, and of
   the locks below none is waited for.
5. ``Connector._changed``, ``Acceptor._lock``, ``Attempt._lock`` (in this order), ``PrivateSocket._opening``,
   ``Wakeup._lock``: each for a few lines.

Latches, ``Link._wakeup`` and SimpleQueues are held by nobody: to set, release or put never blocks.

A finalizer, the callback of a collected weak receiver and a signal handler run in the middle of anything,
also under the locks of group 5. The library's own callback for a weak receiver takes the state lock (unless
its thread holds it already: then it defers that, see ``Node.defer``), and so does a send of the user's. That
is why nobody who holds the state lock may wait for a lock of group 5, and ``Wakeup.ring``, which is called
there, waits for none: it leaves the ring to whoever has the lock.

A signal handler may also raise. CPython calls it after a call, at the beginning of a function, or at a jump
back; never between plain assignments. So what the main thread may be interrupted in is written as
``try: lock.acquire(); ...; lock.release()`` with ``except BaseException: let_go(lock)``: after ``acquire()``
and before a ``try:`` the handler may come, and before a ``__exit__`` in Python as well.
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

from .clock import monotonic
from .logs import Log

log = Log("ipevents")

_LONGEST_POLL = 2**31 - 1  # milliseconds, 24.8 days: a C int


def for_poll(seconds: float | None) -> float | None:
    """A wait as ``poll`` takes it: milliseconds, None for ever, no more than the system takes.

    So it may end before its time, and the caller has to look at the clock again; it has to anyway, since
    rings come for other reasons as well. Half a millisecond too long rather than too short: a wait that ends
    just before its time would be followed by many of no time at all.
    """
    return None if seconds is None else min(max(0.0, seconds) * 1000 + 0.5, _LONGEST_POLL)


def for_lock(seconds: float) -> float:
    """A wait as locks, conditions and ``Thread.join`` take it: at most centuries."""
    return min(seconds, threading.TIMEOUT_MAX)


class Deadline:
    """A budget in seconds that several steps share; None lasts for ever."""

    __slots__ = ("at",)

    def __init__(self, seconds: float | None) -> None:
        self.at = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, never negative; None for ever."""
        return None if self.at is None else max(0.0, self.at - monotonic())

    def passed(self) -> bool:
        return self.at is not None and monotonic() >= self.at

    def shorten(self, seconds: float) -> None:
        """Let it end ``seconds`` from now, if that is sooner. For signal handlers as well."""
        at = monotonic() + seconds
        if self.at is None or at < self.at:
            self.at = at

    def at_least(self, seconds: float) -> Deadline:
        """The same deadline, or ``seconds`` from now where that is later."""
        left = self.left()
        return Deadline(None if left is None else max(left, seconds))


class Latch:
    """Set once, waited for by any number of threads.

    Unlike ``threading.Event`` it can be set by a signal handler that interrupts its own waiter:
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

    def wait(self, timeout: float | None = None) -> bool:
        """Block until set, at most ``timeout`` seconds; returns whether it is set."""
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


def acquire_from_user(lock: threading.RLock) -> None:
    """Acquire a lock that other threads hold for as long as the user's code likes; not for its owner.

    A signal handler may raise in here, and then the calling thread does not hold the lock.
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
        # Guards the life of the writing descriptor: nobody rings at a number that is somebody else's by
        # now. Only ``close`` waits for it. An RLock, because that knows its owner.
        self._lock = threading.RLock()
        self._wanted = False  # somebody has asked for a ring since the last one
        ends: list[tuple[int, int]] = []
        try:
            ends += itertools.starmap(os.pipe, ((),))  # there before a signal handler can raise
            for end in ends[0]:
                os.set_blocking(end, False)
        except BaseException:
            for end in itertools.chain(*ends):
                os.close(end)
            raise
        self._reader, self._writer = ends[0]

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        """Wake the waiter; never blocks, and waits for no lock. After ``close`` it does nothing."""
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # called within itself, see the top of the file
            self._write()
            return
        self._wanted = True
        try:
            # Whoever finds the lock taken leaves the ring to its owner, which looks again after letting go.
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
        """Give the descriptors back; called by the owner when nobody waits any more."""
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
    """What the main thread waits for, because it runs the signal handlers.

    CPython blocks in a lock although a signal came, if that was between its last look and the system
    call; so here the main thread polls a descriptor, to which every signal writes as well
    (``signal.set_wakeup_fd``). Another owner of that gets it back, with the signals that came meanwhile.
    """

    def __init__(self) -> None:
        self.is_waited_for = False
        self._wakeup: Wakeup | None = None  # made with the first wait

    def ring(self) -> None:
        """Have the main thread look again at what it waits for. Never blocks."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.ring()

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
            self.is_waited_for = True  # from here on, whoever makes it over rings
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


library_threads: set[int] = set()  # idents; code that runs in one of them never waits for room


def forget_threads() -> None:
    """In a process made by os.fork(): only the forking thread is here, and the system gives the others'
    idents to new threads, which need not be the library's."""
    library_threads.intersection_update({get_ident()})


def main_ident() -> int:
    """The main thread's number, for signals."""
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def start_thread(
    name: str, run: Callable[[], None], *, on_fault: Callable[[BaseException], None] | None = None
) -> threading.Thread:
    """A running daemon thread called ``ipevents-<name>``.

    Daemon, because the interpreter joins the others before ``atexit`` hooks run (FAULTS K12); every
    thread is ended by the ``close`` of its owner. What ``run`` raises is logged, and ``on_fault`` is called
    with it in the thread: the owner does without the thread, or calls ``run`` again.
    """

    def registered() -> None:
        ident = get_ident()
        library_threads.add(ident)
        try:
            run()
        except BaseException as exc:  # a fault of the library or of the system; nobody is left to raise it at
            log.exception("! the thread %s has failed", name)
            if on_fault is not None:
                on_fault(exc)
        finally:
            library_threads.discard(ident)

    thread = threading.Thread(target=registered, name=f"ipevents-{name}", daemon=True)
    thread.start()
    return thread


def join_thread(thread: threading.Thread | None, deadline: Deadline) -> bool:
    """Wait for a thread's end, unless it is the calling one. Returns whether it has ended."""
    if thread is None or thread is threading.current_thread():
        return True
    left = deadline.left()
    thread.join(None if left is None else for_lock(left))
    return not thread.is_alive()
