"""The state lock of a node, and the calls that wait for its release."""

from __future__ import annotations

from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable
from typing import Any

from .._exceptions import IPEventsError
from .._platform.latches import let_go

_Calls = deque[tuple[Callable[..., Any], tuple[Any, ...]]]


class StateLock(RLock):  # type: ignore[misc]  # final for type checkers only
    """An RLock for one reason: ``_is_owned()`` tells atomically whether this thread holds it.

    Code that finds so was called from inside (a signal handler, a finalizer) and must not go on: it queues
    its call with ``defer``, and that runs after the release. ``with`` runs it; after a bare ``release()``
    call ``run_deferred()`` if there is anything in ``deferred``.

    ``on_error`` gets what a deferred call raises of the library's own errors: nobody is left to raise it at.
    """

    __slots__ = ("_on_error", "_running", "deferred")  # an instance's dict would be slower here

    def __init__(self, on_error: Callable[[IPEventsError], None]) -> None:
        super().__init__()
        self.deferred: dict[int, _Calls] = {}  # by thread
        self._running: set[int] = set()  # threads that run theirs just now
        self._on_error = on_error

    def __enter__(self) -> bool:  # type: ignore[override]  # the arguments are for direct calls only
        try:
            return self.acquire()
        except BaseException:  # of a signal handler; on 3.14 it may come between ``acquire`` and the block
            let_go(self)
            raise

    def __exit__(self, *exc: object) -> None:
        self.release()
        if self.deferred:
            self.run_deferred()

    def inside(self) -> bool:
        """Whether this code was called from within a section of its thread that holds the lock."""
        return self._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition does

    def defer(self, call: Callable[..., Any], *args: Any) -> None:
        """Queue a call for the moment at which this thread leaves the lock."""
        self.deferred.setdefault(get_ident(), deque()).append((call, args))

    def run_deferred(self) -> None:
        """Lock not held: run what this thread queued from inside, in order.

        What is queued by that runs after it, and not within.
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
                except IndexError:  # not asked before: a signal handler may come in between, and run all
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
        """In a process made by os.fork(), before another lock takes its place: nothing waits for this one."""
        self.deferred.clear()
        self._running.clear()
