"""Connections that were refused: counted, and told to user code no faster than once a second and cause.

Whoever reaches a socket can be refused as often as he likes, see limited.py.

Locks: the state lock guards the counts. ``note`` is called in the acceptors' threads without it; listeners of
``error`` run in the notices thread.
"""

from __future__ import annotations

from .._exceptions import LinkError
from .._platform.logs import Log
from .errors import Errors
from .limited import Limited
from .node_state import NodeState

log = Log("ipevents.refused")


class Refusals:
    """The refused connections of one node, to all its sockets."""

    def __init__(self, node: NodeState, errors: Errors) -> None:
        self._node = node
        self._errors = errors
        self.counts: dict[str, int] = {}  # by cause, for stats()
        self._limited = Limited(node)

    def note(self, cause: str, text: str) -> None:
        """Count a refusal, and report it as an ``error`` event, which is logged where nobody listens."""
        self._count(cause)
        self._limited.note(("error", cause), lambda more: self._errors.tell(LinkError(text + more)))

    def note_privately(self, cause: str, text: str) -> None:
        """Count a refusal at the socket for children, and log it as a warning."""
        self._count(cause)
        self._limited.note(("warning", cause), lambda more: log.warning("! %s%s", text, more))

    def note_quietly(self, cause: str, text: str) -> None:
        """Count a refusal that is nobody's fault, and log it for debugging."""
        self._count(cause)
        more = self._limited.is_due(("debug", cause))
        if more is not None:
            log.debug("! %s%s", text, more)

    def _count(self, cause: str) -> None:
        with self._node.lock:
            self.counts[cause] = self.counts.get(cause, 0) + 1
