"""Threads of the library and what they share: deadlines, names, idents; and the locks of the whole package.

These are the locks, in the order in which a thread may take them. A thread takes a lock only while it holds
none that stands further down in the list:

1. ``Opening._starting``: only one thread at a time goes through ``start``. It may wait for the next lock.
2. ``Floor.lock``: only one thread in the process runs listeners. Held while code of the user runs.
3. ``Opening.building``: the steps from one state of an emitter to the next. Its owner waits for nothing but
   the start of threads.
4. ``NodeState.lock``, the state lock. Its owner logs nothing, calls no listener and waits for nothing, not
   even for a lock of group 5.
5. ``Connector._changed``, ``Acceptor._lock``, ``Attempt._lock`` (in this order), ``ChildSocket._opening``,
   ``Wakeup._lock``, and ``_patch_lock`` of preparation.py: each is held for a few lines. ``_lock`` of
   fork_server.py belongs here too, but is held while the process of a fork server is started.

No thread owns a latch, ``Writer._wakeup`` or a SimpleQueue: to set, release or put never blocks.

A finalizer, the callback for a collected weak receiver and a signal handler run in the middle of anything,
also while their thread holds a lock of group 5. The library's own callback for a weak receiver takes the
state lock (if its thread holds that already, it defers the call, see ``StateLock.defer``), and so does a send
in the user's finalizer. If the owner of the state lock waited for a lock of group 5, both threads would wait
for ever. Therefore it does not. ``Wakeup.ring``, which is called under the state lock, waits for no lock: if
another thread holds the lock of the wakeup, that thread rings.

A signal handler may also raise. CPython calls it after a call, at the beginning of a function, or at a jump
back, and never between plain assignments. It may come after ``acquire()`` and before a ``try:``, and also
before the body of a ``__exit__`` that is written in Python. Therefore what may be interrupted in the main
thread is written as ``try: lock.acquire(); ...; lock.release()`` with ``except BaseException: let_go(lock)``.
"""

from __future__ import annotations

import select
import threading
from _thread import get_ident
from collections.abc import Callable

from .clock import monotonic
from .guards import patient
from .logs import Log

log = Log("ipevents")

_LONGEST_POLL = 2**31 - 1  # milliseconds, 24.8 days: a C int


def for_poll(seconds: float | None) -> float | None:
    """A time to wait in the form that ``poll`` takes: milliseconds, None for ever, no more than fits a C int.

    So the wait may end too early, and the caller looks at the clock again. The caller has to anyway, since
    rings come for other reasons as well. The result is half a millisecond too long rather than too short: a
    wait that ended just before its time would be followed by many of no length.
    """
    return None if seconds is None else min(max(0.0, seconds) * 1000 + 0.5, _LONGEST_POLL)


def run_rounds(once: Callable[[], None], is_over: Callable[[], bool], log: Log, owner: object) -> None:
    """Call ``once`` until ``is_over()``: the loop of a thread.

    A round that fails is logged, and the next one may succeed: the fault may be that of a system without
    memory. After too many in a row it returns, see ``patient``, which waits after each of them.
    """
    faults = 0  # in a row
    while not is_over():
        try:
            once()
            faults = 0
        except Exception:  # of the library, or of the system
            faults += 1
            log.exception("! a round of %r failed", owner)
            if not is_over() and not patient(faults):
                log.warning("! %r gives up after %d faults in a row", owner, faults)
                return


def is_readable(descriptor: int, seconds: float | None) -> bool:
    """Wait at most so long until a descriptor is readable, or at its end. Returns whether it is.

    None waits for ever, 0.0 not at all. A wait of more than 24 days may end too early.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(for_poll(seconds)))


def for_lock(seconds: float) -> float:
    """A time to wait in the form that locks, conditions and ``Thread.join`` take: at most centuries."""
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
        """Whether the time is over; never true for a deadline that lasts for ever."""
        return self.at is not None and monotonic() >= self.at

    def shorten(self, seconds: float) -> None:
        """Let it end ``seconds`` from now, if that is sooner. May be called by a signal handler."""
        at = monotonic() + seconds
        if self.at is None or at < self.at:
            self.at = at

    def at_least(self, seconds: float) -> Deadline:
        """A deadline that ends with this one, or ``seconds`` from now if that is later."""
        left = self.left()
        return Deadline(None if left is None else max(left, seconds))


library_threads: set[int] = set()  # idents; a send in one of them never waits for room in an outbox


def forget_threads() -> None:
    """In a process made by os.fork(): forget the library's threads, which do not exist here.

    The system gives their idents to new threads, which need not be the library's.
    """
    library_threads.intersection_update({get_ident()})


def main_ident() -> int:
    """The main thread's ident, to which signals are sent."""
    ident = threading.main_thread().ident
    assert ident is not None
    return ident


def start_thread(
    name: str, run: Callable[[], None], *, on_fault: Callable[[BaseException], None] | None = None
) -> threading.Thread:
    """Start a daemon thread called ``ipevents-<name>``.

    A daemon, because the interpreter joins all other threads before ``atexit`` hooks run. Whatever owns the
    thread ends it in its ``close``.

    What ``run`` raises is logged. Then ``on_fault`` is called with the exception, in the thread: the owner
    goes on without the thread, or calls ``run`` again.
    """

    def registered() -> None:
        ident = get_ident()
        library_threads.add(ident)
        try:
            run()
        except BaseException as exc:  # a fault of the library or of the system; the thread has no caller
            log.exception("! the thread %s has failed", name)
            if on_fault is not None:
                on_fault(exc)
        finally:
            library_threads.discard(ident)

    thread = threading.Thread(target=registered, name=f"ipevents-{name}", daemon=True)
    thread.start()
    return thread


def join_thread(thread: threading.Thread | None, deadline: Deadline) -> bool:
    """Wait for the end of a thread; returns whether it has ended.

    True at once where there is no thread, and in the thread itself, which cannot wait for its own end.
    """
    if thread is None or thread is threading.current_thread():
        return True
    left = deadline.left()
    thread.join(None if left is None else for_lock(left))
    return not thread.is_alive()
