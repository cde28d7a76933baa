"""Which events are listened to here and below, and what of that has to be announced to the parent.

The parent needs to know only whether anyone in this subtree listens to an event. So the sources are counted
for each event, and only the steps from 0 to 1 and from 1 to 0 are announced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Change(NamedTuple):
    """What has to be announced to the parent: events to advertise and events to withdraw."""

    advertise: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()


class Interest:
    """The sum of what this process and the subtrees below it listen to.

    A ``source`` is any hashable value: the link of a child, or a mark for this process itself. Each source
    counts once for each event. Methods that change something return the ``Change`` to announce.
    """

    def __init__(self) -> None:
        self._names: dict[object, set[str]] = {}
        self._counts: dict[str, int] = {}

    def of(self, source: object) -> frozenset[str]:
        """Return the events that one source wants."""
        return frozenset(self._names.get(source, ()))

    def all(self) -> tuple[str, ...]:
        """Return all events that any source wants, sorted: what is announced to a new parent."""
        return tuple(sorted(self._counts))

    def wants(self, source: object, event: str) -> bool:
        """Return whether a source wants an event."""
        names = self._names.get(source)
        return names is not None and event in names

    def add(self, source: object, event: str) -> Change:
        """Note that a source wants an event; a second time changes nothing."""
        names = self._names.setdefault(source, set())
        if event in names:
            return Change()
        names.add(event)
        count = self._counts.get(event, 0)
        self._counts[event] = count + 1
        return Change(advertise=(event,)) if count == 0 else Change()

    def remove(self, source: object, event: str) -> Change:
        """Note that a source does not want an event any more."""
        names = self._names.get(source)
        if names is None or event not in names:
            return Change()
        names.discard(event)
        if not names:
            del self._names[source]
        return Change(withdraw=(event,)) if self._lower(event) else Change()

    def add_all(self, source: object, events: Iterable[str]) -> Change:
        """Note that a source wants these events too."""
        return Change(tuple(event for event in events if self.add(source, event).advertise))

    def replace(self, source: object, events: Iterable[str]) -> Change:
        """Make ``events`` all that the source wants."""
        new = set(events)
        old = self._names.get(source, set())
        if new:
            self._names[source] = new
        else:
            self._names.pop(source, None)
        advertise = []
        for event in sorted(new - old):
            count = self._counts.get(event, 0)
            self._counts[event] = count + 1
            if count == 0:
                advertise.append(event)
        withdraw = [event for event in sorted(old - new) if self._lower(event)]
        return Change(tuple(advertise), tuple(withdraw))

    def forget(self, source: object) -> Change:
        """Remove a source with all that it wanted."""
        return self.replace(source, ())

    def _lower(self, event: str) -> bool:
        """Count one source less for an event. Returns whether that was the last one."""
        count = self._counts[event] - 1
        if count:
            self._counts[event] = count
            return False
        del self._counts[event]
        return True
