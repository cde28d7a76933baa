"""What came from the parent before this process had said its ``online``, and waits for that.

The parent link's reader adds and releases, so the store needs no lock of its own; only the end of a stop,
when that reader takes nothing more, drops it from another thread. The two latches may be set and waited for
by any thread: they are no Events, whose lock a signal handler may find held by the code that it interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .._core.decisions import Decision
from .._core.messages import Payload
from .._links.link import Link
from .._payload.forms import size_of
from .._platform.latches import Latch

_MAX_BYTES = 64 << 20  # as much as an outbox holds
_MAX_MESSAGES = 100_000

Message = tuple[Link, Decision, Payload]


class Held:
    """The messages for this process that wait for its ``online``."""

    def __init__(self) -> None:
        self.count = 0
        self.online_said = Latch()  # the held may come; ends the wait of a reader that found no more room
        self.released = Latch()  # what was held has been delivered, or nothing more comes from the parent
        self._messages: list[Message] = []
        self._bytes = 0

    def is_full(self) -> bool:
        """Whether the reader has to wait for ``online_said`` before it goes on."""
        return self._bytes >= _MAX_BYTES or self.count >= _MAX_MESSAGES

    def add(
        self, link: Link, decisions: Mapping[str, Decision], events: Iterable[str], messages: list[Payload]
    ) -> None:
        """Keep messages, each with the decision for its event."""
        self._messages += [
            (link, decisions[event], payload) for event, payload in zip(events, messages, strict=False)
        ]
        self._bytes += sum(map(size_of, messages))
        self.count = len(self._messages)

    def take(self) -> list[Message]:
        """Everything that was held, in order; nothing is held any more."""
        messages, self._messages = self._messages, []
        self._bytes = self.count = 0
        return messages

    def drop(self) -> None:
        """State lock held, at the end of a stop: count what waited for an ``online`` that was never said."""
        messages = self.take()
        if messages:
            messages[0][0].drop("stopped", len(messages))
