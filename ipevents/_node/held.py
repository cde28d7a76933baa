"""A store for what came from the parent before this process announced its ``online``.

The parent link's reader adds and releases, so the store needs no lock of its own. Only ``drop`` runs in
another thread, at the end of a stop, when that reader takes nothing more. Any thread may set the two latches
and wait for them. They are no Events: a signal handler may find an Event's lock held by the code that it
interrupted.
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
        self.online_said = Latch()  # they may be delivered; ends the wait of a reader that found no room
        self.is_dropped = False  # online is never announced, so nothing is kept any more; state lock
        self.released = Latch()  # what was held has been delivered, or nothing more comes from the parent
        self._messages: list[Message] = []
        self._bytes = 0

    def is_full(self) -> bool:
        """Return whether the reader has to wait for ``online_said`` before it goes on."""
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

    def count_of(self, link: Link) -> int:
        """Return how many messages are held that came by this link."""
        return sum(message[0] is link for message in self._messages)

    def take(self) -> list[Message]:
        """Remove and return everything that was held, in order."""
        messages, self._messages = self._messages, []
        self._bytes = self.count = 0
        return messages

    def drop(self) -> None:
        """Count what is held as lost: ``online`` was never announced.

        State lock held, at the end of a stop.

        Nothing of it is delivered from here on. The reader counts what comes after this.
        """
        self.is_dropped = True
        messages = self.take()
        if messages:
            messages[0][0].let_go += len(messages)
