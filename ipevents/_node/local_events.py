"""Events of this process for its own listeners: what ``emit`` does, and the library's own events.

There is no lock in this file. Listeners are called in the calling thread or in the notices thread. That
thread holds the floor meanwhile, and no lock.
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
    """The local events of one node: checked, delivered in this thread, or queued for the notices thread."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._offlines = 0  # notices of offline that are queued; guarded by the state lock

    def checked(self, event: object, *, sending: bool) -> str | None:
        """Return the plain name of an event that the caller may use; None after reporting why not."""
        try:
            return check_event(event, sending=sending)
        except IPEventsError as exc:
            self._node.fail(exc)
            return None

    @runs_deferred
    def emit(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Call this process's own listeners of an event; return whether there were any.

        Called from inside the state lock, by a signal handler, say, it is deferred until the lock is
        released; then it returns whether there are listeners now.
        """
        node = self._node
        lock = node.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # see StateLock.inside
            lock.defer(self._emit_late, event, args, kwargs)
            return node.dispatcher.listens_to(event)
        try:
            heard = self.deliver(event, args, kwargs)
            exc = node.dispatcher.ended
            if exc is not None and node.dispatcher.runs_here():
                raise exc  # a listener emitted, and has to end as well
            return heard
        finally:
            if lock.deferred:  # by a signal handler in the middle of this, see os_signals.py
                lock.run_deferred()

    def defer(self, call: Callable[..., None], *args: Any) -> None:
        """Queue a call for the return of ``emit``. Called by a handler that has interrupted it."""
        self._node.lock.defer(call, *args)

    def _emit_late(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Carry out a deferred ``emit``: in this thread, or in the notices thread.

        The latter where this thread is one of the library's, which must never run listeners here.
        """
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
        """Call the listeners of an event of this process, in this thread; return whether there were any."""
        node = self._node
        envelope = Envelope(0, node.router.path, event, node.reply, exitcode=exitcode)
        return node.dispatcher.deliver(Message(envelope, args, kwargs), kwargs)

    # The notices thread

    def notify(self, call: Callable[[], object]) -> None:
        """Run a call in the notices thread, in order; in this thread where there is no notices thread."""
        notices = self._node.notices
        if notices is None:
            call()
        else:
            notices.put(call)

    def tell_offlines(self, notices: list[Callable[[], None]]) -> None:
        """Queue the notices of ``offline`` that ``Presence.child_gone`` returned. Lock held."""
        if notices:
            self._offlines += 1
            for notice in notices:
                self.notify(notice)
            self.notify(self._offlines_told)

    def _offlines_told(self) -> None:
        """Note that one group of queued notices has run. In the notices thread."""
        with self._node.lock:
            self._offlines -= 1

    def after_offlines(self, call: Callable[[], None]) -> None:
        """Run a call after all ``offline`` that are queued so far: at once, or in the notices thread.

        So nothing that a successor sends is delivered before the end of its predecessor was announced.
        """
        with self._node.lock:
            waits = self._offlines > 0
        if waits:
            self.notify(call)
        else:
            call()
