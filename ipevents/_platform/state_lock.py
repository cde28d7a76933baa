"""The state lock of a node, and the calls that wait for its release.

A signal handler or a finalizer may run in the middle of a section that holds the lock. It must not touch what
is half changed, so it queues what it wants to do.
"""

from __future__ import annotations

from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable
from typing import Any

from .._exceptions import IPEventsError
from .latches import let_go

_Calls = deque[tuple[Callable[..., Any], tuple[Any, ...]]]


class StateLock(RLock):  # type: ignore[misc]  # final for type checkers only
    """An RLock for one reason: ``_is_owned()`` tells atomically whether this thread holds it.

    Code that finds so was called from inside (a signal handler, a finalizer) and must not go on: it queues
    its call with ``defer``, which runs after the release. ``with`` runs it; after a bare ``release()`` call
    ``run_deferred()`` if there is anything in ``deferred``.

    ``on_error`` gets an error of the library that a deferred call raises: there is no caller to raise it at.
    """

    __slots__ = ("_on_error", "_running", "deferred")  # an instance's dict would be slower here

    def __init__(self, on_error: Callable[[IPEventsError], None]) -> None:
        super().__init__()
        self.deferred: dict[int, _Calls] = {}  # by thread
        self._running: set[int] = set()  # threads that are running their deferred calls
        self._on_error = on_error

    def __enter__(self) -> bool:  # type: ignore[override]  # the arguments are for direct calls only
        try:
            got = self.acquire()
        except BaseException:  # of a signal handler; on 3.14 it may come between ``acquire`` and the block
            let_go(self)
            raise
        return got

    def __exit__(self, *exc: object) -> None:
        self.release()
        if self.deferred:
            self.run_deferred()

    def inside(self) -> bool:
        """Return whether this thread holds the lock: the code was called from within such a section."""
        return self._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition does

    def let_go(self, outer: bool) -> None:
        """Give the lock back after an exception of any kind, unless ``outer`` is true.

        ``outer`` is what ``inside()`` returned before the call. A signal handler may raise at the entry of
        ``__exit__``, and then a ``with`` block leaves the lock held. So whatever the main thread calls from
        outside, and goes through ``with`` blocks of the lock, calls this first when an exception leaves it.
        """
        if not outer:
            while self.inside():
                let_go(self)
            if self.deferred:
                self.run_deferred()

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread releases the lock."""
        self.deferred.setdefault(get_ident(), deque()).append((call, args))

    def run_deferred(self) -> None:
        """Run what this thread queued from inside, in order. Lock not held.

        A call that these calls queue runs after them, and not within.
        """
        ident = get_ident()
        mine = self.deferred.get(ident)
        if mine is None or ident in self._running:
            return
        try:
            self._running.add(ident)
            while not self.inside():
                try:
                    call, args = mine.popleft()
                except IndexError:  # no test before popleft: a signal handler may run all between the two
                    break
                try:
                    call(*args)
                except IPEventsError as exc:
                    self._on_error(exc)
        finally:
            self._running.discard(ident)
        if not mine:
            meanwhile = self.deferred.pop(ident, None)
            if meanwhile:  # put there by a handler just now
                self.deferred.setdefault(ident, deque()).extend(meanwhile)

    def forget(self) -> None:
        """Forget all queued calls in a process made by os.fork().

        Another lock takes the place of this one.
        """
        self.deferred.clear()
        self._running.clear()
