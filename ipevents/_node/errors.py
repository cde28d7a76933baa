"""Errors: raised at the caller, delivered as an ``error`` event, or logged.

There is no lock in this file. ``fail`` and ``report`` may be called in any thread, ``report`` also under any
lock: listeners of ``error`` run in the notices thread. An error that has no listener is logged there, each
kind at most once a second.

What a peer can provoke as often as it likes is not told each time, see limited.py: that goes through
``report_peer``. What a listener of the user raises is told each time.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Hashable
from typing import Any

from .._core.callable_names import described, failure
from .._core.messages import ErrorEnvelope, Message
from .._core.repeats import MAX_KINDS, Repeats, more
from .._core.state import Stage
from .._dispatch.listeners import Listener
from .._exceptions import Closed, IPEventsError, LinkError
from .._platform.clock import monotonic
from .._platform.logs import Log
from .limited import Limited
from .node_state import NodeState

log = Log("ipevents")

REPEAT_SECONDS = 1.0  # from one log line of a kind of failure to the next
_MAX_LOGGED = MAX_KINDS  # kinds of failures that are remembered for that
_NO_KWARGS: dict[str, Any] = {}


class Errors:
    """The errors of one node.

    ``fail`` is for mistakes of the caller, ``report`` for everything that no caller can be blamed for, and
    ``report_peer`` for what a peer has done.
    """

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self.faults: dict[str, int] = {}  # connections that ended with an error, by its class; for stats()
        self._limited = Limited(node)
        self._telling = node.telling_errors
        self._logged = Repeats(_MAX_LOGGED)  # kinds of failures: a type and a listener

    def fail(self, exc: IPEventsError, child: Any = None) -> None:
        """Report a mistake of the caller: as an ``error`` event if that has a listener, otherwise raise it.

        In a listener of ``error`` it is raised as well. As an event it would call that listener again, which
        would make the same mistake, and so on.
        """
        node = self._node
        if (
            not node.dispatcher.listens_to("error")
            or node.stage is Stage.FORKED
            or get_ident() in self._telling
        ):
            raise exc
        self.report(exc, child=child)

    def report(
        self,
        exc: BaseException,
        *,
        failed: Message | None = None,
        listener: Listener | None = None,
        child: Any = None,
    ) -> None:
        """Deliver an ``error`` event, or log the error where that has no listener. Never blocks.

        May be called under the state lock. The keyword arguments are what the error is about, for
        ``message.failed``, ``message.listener`` and ``message.child``.
        """
        node = self._node
        notices = node.notices
        if notices is not None:
            notices.put(lambda: self._tell(exc, failed, listener, child))
        elif node.inside():
            node.defer(self._tell, exc, failed, listener, child)
        else:
            self._tell(exc, failed, listener, child)

    def report_peer(self, kind: Hashable, make: Callable[[str], IPEventsError], *, child: Any = None) -> None:
        """Deliver an ``error`` event for what a peer has provoked, at most once a second for each kind.

        ``make(more)`` returns the error. ``more`` is the end of its text, and says how many others there were
        since the last one that was told. Never blocks. May be called under the state lock.
        """
        self._limited.note(kind, lambda more: self._tell(make(more), None, None, child))

    def link_failed(self, error: LinkError, name: str) -> None:
        """Count the end of the connection to a neighbour of this name by an error, and report that."""
        kind = type(error)
        with self._node.lock:
            self.faults[kind.__name__] = self.faults.get(kind.__name__, 0) + 1

        def make(more: str) -> LinkError:
            if more:
                error.args = (f"{error}{more}",)
            return error

        self.report_peer((kind, name), make)

    def listener_failed(self, exc: BaseException, message: Message, listener: Listener) -> None:
        """Report what a listener raised; only log it if that was a listener of ``error`` itself.

        A Closed that a stop caused in a listener is no error.
        """
        if issubclass(type(exc), Closed) and self._node.stage in (Stage.STOPPING, Stage.CLOSED):
            log.debug("! the stop overtook the listener %s: %s", described(listener), exc)
        elif message.event == "error":
            self._log_failed(exc, message, listener)
        else:
            self.report(exc, failed=message, listener=listener)

    def tell(self, exc: BaseException) -> None:
        """Call the listeners of ``error`` in this thread, and log the error if there are none.

        For errors that the caller reports at most once a second: here none is left out.
        """
        if not self._call(exc, None, None, None):
            self._log_one(exc)

    def _tell(
        self, exc: BaseException, failed: Message | None, listener: Listener | None, child: Any
    ) -> None:
        """Call the listeners of ``error`` in this thread, and log the error if there are none."""
        if not self._call(exc, failed, listener, child):
            self._log(exc, failed, listener)

    def _call(
        self, exc: BaseException, failed: Message | None, listener: Listener | None, child: Any
    ) -> bool:
        """Call the listeners of ``error`` in this thread. Returns whether there were any.

        The thread is noted in ``telling_errors`` meanwhile, for ``fail``.
        """
        node = self._node
        ident = get_ident()
        outer = ident in self._telling
        self._telling.add(ident)
        try:
            envelope = ErrorEnvelope(node.router.path, node.reply, failed, listener, child)
            return node.dispatcher.deliver(Message(envelope, (exc,)), _NO_KWARGS)
        finally:
            if not outer:
                self._telling.discard(ident)

    def _log(self, exc: BaseException, failed: Message | None, listener: Listener | None) -> None:
        """Log an error. One of the same kind within REPEAT_SECONDS is only counted."""
        # The listener is part of the kind: one that fails all the time must not hide failures of others.
        kind = (type(exc), "" if listener is None else described(listener))
        now = monotonic()
        if not self._logged.comes(kind, now, REPEAT_SECONDS):
            return
        others = more(self._logged.told(kind, now), "logged")
        if failed is not None and listener is not None:
            self._log_failed(exc, failed, listener, others)
        else:
            self._log_one(exc, others)

    def _log_one(self, exc: BaseException, others: str = "") -> None:
        """Log an error with the process, and with its traceback if it was raised."""
        trace = exc if exc.__traceback__ else None
        log.error("! %s in %s: %s%s", type(exc).__name__, self._node.place(), exc, others, exc_info=trace)

    def _log_failed(self, exc: BaseException, failed: Message, listener: Listener, others: str = "") -> None:
        """Log which listener of which event failed in which process, in one line, with the traceback."""
        log.error(
            "! listener %s of event %r from %s failed in %s: %s%s",
            described(listener),
            failed.event,
            failed.from_,
            self._node.place(),
            failure(exc),
            others,
            exc_info=exc,
        )
