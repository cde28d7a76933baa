"""Connections that were refused: counted, and told to user code no faster than once a second and cause.

Whoever reaches a socket can be refused as often as he likes. So of each cause at most one report waits in the
notices thread, and an ``offline`` never has more than a few of them before it. How many more there were is
said with the next one.

Locks: the state lock guards everything here. ``note`` is called in the acceptors' threads without it; the
listeners of ``error`` run in the notices thread.
"""

from __future__ import annotations

from collections.abc import Callable

from .._core.repeats import Repeats, more
from .._dispatch.notices import Notices
from .._exceptions import LinkError
from .._platform.clock import monotonic
from .._platform.logs import Log
from .errors import Errors
from .local_events import LocalEvents
from .node_state import NodeState

log = Log("ipevents.refused")

REPEAT_SECONDS = 1.0  # from one report of a cause to the next


class Refusals:
    """The refused connections of one node, to all its sockets."""

    def __init__(self, node: NodeState, events: LocalEvents, errors: Errors) -> None:
        self._node = node
        self._events = events
        self._errors = errors
        self.counts: dict[str, int] = {}  # by cause, for stats()
        self._repeats = Repeats()
        self._notices: Notices | None = None  # the thread in which reports wait

    def note(self, cause: str, text: str) -> None:
        """Count a refusal, and report it as an ``error`` event, which is logged where nobody listens."""
        self._note(cause, "error", text, self._report)

    def note_privately(self, cause: str, text: str) -> None:
        """Count a refusal at the socket for children, and log it as a warning."""
        self._note(cause, "warning", text, self._warn)

    def note_quietly(self, cause: str, text: str) -> None:
        """Count a refusal that is nobody's fault, and log it for debugging."""
        kind = ("debug", cause)
        with self._node.lock:
            self._count(cause)
            now = monotonic()
            is_due = self._repeats.comes(kind, now, REPEAT_SECONDS)
            hidden = self._repeats.told(kind, now) if is_due else 0
        if is_due:
            log.debug("! %s%s", text, more(hidden))

    def _count(self, cause: str) -> None:
        self.counts[cause] = self.counts.get(cause, 0) + 1

    def _note(self, cause: str, how: str, text: str, tell: Callable[[str], None]) -> None:
        """Count a refusal, and have ``tell`` called in the notices thread, unless it is too soon for that."""
        node = self._node
        kind = (how, cause)
        with node.lock:
            self._count(cause)
            if node.notices is not self._notices:  # another life: what waited for the last one is gone
                self._notices = node.notices
                self._repeats.nothing_waits()
            if not self._repeats.comes(kind, monotonic(), REPEAT_SECONDS):
                return

        def notice() -> None:
            with node.lock:
                hidden = self._repeats.told(kind, monotonic())
            tell(f"{text}{more(hidden)}")

        self._events.notify(notice)

    def _report(self, text: str) -> None:
        self._errors.tell(LinkError(text))

    def _warn(self, text: str) -> None:
        log.warning("! %s", text)
