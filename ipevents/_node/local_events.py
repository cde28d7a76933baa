"""Events of this process for its own listeners: what ``emit`` does, and the library's own events.

No lock of its own. Listeners are called with no lock held but the floor, in the calling thread or in the
notices thread.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Mapping
from typing import Any

from .._core.messages import Envelope, Message, check_event
from .._exceptions import IPEventsError
from .._platform.interruptible import runs_deferred
from .._platform.threads import library_threads
from .node_state import NodeState

_NO_KWARGS: dict[str, Any] = {}


class LocalEvents:
    """The local events of one node."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._offlines = 0  # notices of offline that are queued; guarded by the state lock

    def checked(self, event: object, *, sending: bool) -> str | None:
        """The plain name of an event that the caller may use; None after an ``error`` event about it."""
        try:
            return check_event(event, sending=sending)
        except IPEventsError as exc:
            self._node.fail(exc)
            return None

    @runs_deferred
    def emit(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """An event of this process for its own listeners; returns whether there were any."""
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            lock.defer(self._emit_late, event, args, kwargs)
            return node.dispatcher.listens_to(event)
        try:
            heard = self.deliver(event, args, kwargs)
            exc = node.dispatcher.ended
            if exc is not None and node.dispatcher.runs_here():
                raise exc  # the listener that emitted, in which nothing is to go on either
            return heard
        finally:
            if lock.deferred:  # a signal that came in the middle, see os_signals.py
                lock.run_deferred()

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """In a handler that interrupted ``emit``: called when that is about to return."""
        self._node.lock.defer(call, *args)

    def _emit_late(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A deferred ``emit``: here, but not in a library thread, which may never run listeners."""
        if get_ident() in library_threads:
            self.notify(lambda: self.deliver(event, args, kwargs))
        else:
            self.deliver(event, args, kwargs)

    def deliver(
        self,
        event: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NO_KWARGS,
        exitcode: int | None = None,
    ) -> bool:
        """Call the listeners of an event of this process, in this thread; returns whether there were any."""
        node = self._node
        envelope = Envelope(0, node.router.path, event, node.reply, exitcode=exitcode)
        return node.dispatcher.deliver(Message(envelope, args, kwargs), kwargs)

    # The notices thread

    def notify(self, call: Callable[[], object]) -> None:
        """Run a call in the notices thread, in order; in this thread where that is not there."""
        notices = self._node.notices
        if notices is None:
            call()
        else:
            notices.put(call)

    def tell_offlines(self, notices: list[Callable[[], None]]) -> None:
        """Lock held: queue what ``Presence.child_gone`` returned."""
        if notices:
            self._offlines += 1
            for notice in notices:
                self.notify(notice)
            self.notify(self._offlines_told)

    def _offlines_told(self) -> None:
        with self._node.lock:
            self._offlines -= 1

    def after_offlines(self, call: Callable[[], None]) -> None:
        """Run a call when every ``offline`` so far was announced: at once, or in the notices thread.

        So nothing of a successor is delivered before the end of the one before it.
        """
        with self._node.lock:
            waits = self._offlines > 0
        if waits:
            self.notify(call)
        else:
            call()
