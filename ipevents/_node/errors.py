"""What goes wrong: raised at the caller, an ``error`` event, or logged.

No lock of its own. ``fail`` and ``report`` may be called by any thread, ``report`` under any lock: the
listeners run in the notices thread. What nobody listens to is logged there, at most once a second for each
kind.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from .._core.callable_names import described, failure
from .._core.messages import ErrorEnvelope, Message
from .._core.state import Stage
from .._dispatch.listeners import Listener
from .._exceptions import Closed, IPEventsError
from .._platform.clock import monotonic
from .._platform.logs import Log
from .node_state import NodeState

log = Log("ipevents")

REPEAT_SECONDS = 1.0  # the same failure is logged at most so often
_MAX_LOGGED = 1024  # kinds of failures that are remembered for that
_NO_KWARGS: dict[str, Any] = {}


class Errors:
    """The errors of one node."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._telling = node.telling_errors
        # When a kind of failure, a type and a listener, was logged last, and how many more came since.
        self._logged: dict[tuple[type, str], tuple[float, int]] = {}

    def fail(self, exc: IPEventsError, child: Any = None) -> None:
        """A mistake of the caller: an ``error`` event if anyone listens to it, otherwise raised here.

        Raised also in a listener of ``error``: it would be called for it, make the same mistake, and so on.
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
        """Tell the listeners of ``error``, or the log. May be called under the state lock; never blocks.

        The rest is what the error is about, for ``message.failed``, ``message.listener``, ``message.child``.
        """
        node = self._node
        notices = node.notices
        if notices is not None:
            notices.put(lambda: self._tell(exc, failed, listener, child))
        elif node.inside():
            node.defer(self._tell, exc, failed, listener, child)
        else:
            self._tell(exc, failed, listener, child)

    def listener_failed(self, exc: BaseException, message: Message, listener: Listener) -> None:
        """What a listener raised: an ``error`` event, unless it was one of ``error`` itself."""
        if issubclass(type(exc), Closed) and self._node.stage in (Stage.STOPPING, Stage.CLOSED):
            log.debug("! the stop overtook the listener %s: %s", described(listener), exc)
        elif message.event == "error":
            self._log_failed(exc, message, listener)
        else:
            self.report(exc, failed=message, listener=listener)

    def _tell(
        self, exc: BaseException, failed: Message | None, listener: Listener | None, child: Any
    ) -> None:
        node = self._node
        ident = get_ident()
        outer = ident in self._telling
        self._telling.add(ident)
        try:
            envelope = ErrorEnvelope(node.router.path, node.reply, failed, listener, child)
            heard = node.dispatcher.deliver(Message(envelope, (exc,)), _NO_KWARGS)
        finally:
            if not outer:
                self._telling.discard(ident)
        if not heard:
            self._log(exc, failed, listener)

    def _log(self, exc: BaseException, failed: Message | None, listener: Listener | None) -> None:
        # Of the same listener: otherwise one that fails all the time would hide the failures of the others.
        kind = (type(exc), "" if listener is None else described(listener))
        now = monotonic()
        last, hidden = self._logged.get(kind, (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            self._logged[kind] = (last, hidden + 1)
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[kind] = (now, 0)
        more = f" ({hidden} more of this kind were not logged)" if hidden else ""
        if failed is not None and listener is not None:
            self._log_failed(exc, failed, listener, more)
            return
        trace = exc if exc.__traceback__ else None
        log.error("! %s in %s: %s%s", type(exc).__name__, self._node.place(), exc, more, exc_info=trace)

    def _log_failed(self, exc: BaseException, failed: Message, listener: Listener, more: str = "") -> None:
        """One line that says which listener of which event failed in which process, and the traceback."""
        log.error(
            "! listener %s of event %r from %s failed in %s: %s%s",
            described(listener),
            failed.event,
            failed.from_,
            self._node.place(),
            failure(exc),
            more,
            exc_info=exc,
        )
