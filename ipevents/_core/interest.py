"""Which events are listened to here and below, and what of that has to be announced to the parent.

The parent needs to know only whether anyone in this subtree listens to an event. So the sources are counted
for each event, and only the steps from 0 to 1 and from 1 to 0 are announced.

A source may also want everything: one that has announced too many names to be kept (see Topology). Then this
whole subtree wants everything, which is announced instead of names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .answerers import Sums


class Change(NamedTuple):
    """What has to be announced to the parent: events to advertise and events to withdraw.

    ``everything`` is True where this subtree wants every event from now on, and False where that is over, so
    all its interest has to be announced anew. Then there are no single events.
    """

    advertise: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    everything: bool | None = None
    answers: Sums = ()  # events with how many processes answer them now, and their capacity, see answerers.py


class Interest:
    """The sum of what this process and the subtrees below it listen to.

    A ``source`` is any hashable value: the link of a child, or a mark for this process itself. Each source
    counts once for each event. Methods that change something return the ``Change`` to announce.
    """

    def __init__(self) -> None:
        self._names: dict[object, set[str]] = {}
        self._counts: dict[str, int] = {}
        self._everything: set[object] = set()  # sources that want everything; they have no names

    @property
    def total(self) -> int:
        """How many events are wanted by name, by any source."""
        return len(self._counts)

    def of(self, source: object) -> frozenset[str]:
        """Return the events that one source wants by name."""
        return frozenset(self._names.get(source, ()))

    def count(self, source: object) -> int:
        """Return how many events one source wants by name."""
        return len(self._names.get(source, ()))

    def all(self) -> tuple[str, ...]:
        """Return all events that any source wants by name, sorted: what is announced to a new parent."""
        return tuple(sorted(self._counts))

    @property
    def is_everything(self) -> bool:
        """Whether any source wants everything, so that this is announced to a new parent."""
        return bool(self._everything)

    def wants(self, source: object, event: str) -> bool:
        """Return whether a source wants an event."""
        names = self._names.get(source)
        return (names is not None and event in names) or source in self._everything

    def wants_everything(self, source: object) -> bool:
        """Return whether a source wants every event."""
        return source in self._everything

    def add(self, source: object, event: str) -> Change:
        """Note that a source wants an event; a second time changes nothing."""
        return self.add_all(source, (event,))

    def add_all(self, source: object, events: Iterable[str]) -> Change:
        """Note that a source wants these events too."""
        if source in self._everything:
            return Change()
        names = self._names.setdefault(source, set())
        advertise = []
        for event in events:
            if event not in names:
                names.add(event)
                if self._raise(event):
                    advertise.append(event)
        if not names:
            del self._names[source]
        return self._change(tuple(advertise), ())

    def remove(self, source: object, event: str) -> Change:
        """Note that a source does not want an event any more."""
        names = self._names.get(source)
        if names is None or event not in names:
            return Change()
        names.discard(event)
        if not names:
            del self._names[source]
        return self._change((), (event,) if self._lower(event) else ())

    def replace(self, source: object, events: Iterable[str]) -> Change:
        """Make ``events`` all that the source wants."""
        before = bool(self._everything)
        self._everything.discard(source)
        new = set(events)
        old = self._names.get(source, set())
        if new:
            self._names[source] = new
        else:
            self._names.pop(source, None)
        advertise = [event for event in sorted(new - old) if self._raise(event)]
        withdraw = [event for event in sorted(old - new) if self._lower(event)]
        if before and not self._everything:
            return Change(everything=False)
        return self._change(tuple(advertise), tuple(withdraw))

    def want_everything(self, source: object) -> Change:
        """Note that the source wants every event, and forget its names."""
        before = bool(self._everything)
        for event in self._names.pop(source, ()):
            self._lower(event)
        self._everything.add(source)
        return Change() if before else Change(everything=True)

    def forget(self, source: object) -> Change:
        """Remove a source with all that it wanted."""
        return self.replace(source, ())

    def _change(self, advertise: tuple[str, ...], withdraw: tuple[str, ...]) -> Change:
        """Return a change of single events: none while everything is announced."""
        return Change() if self._everything else Change(advertise, withdraw)

    def _raise(self, event: str) -> bool:
        """Count a source more for an event. Returns whether that is the first one."""
        count = self._counts.get(event, 0)
        self._counts[event] = count + 1
        return count == 0

    def _lower(self, event: str) -> bool:
        """Count one source less for an event. Returns whether that was the last one."""
        count = self._counts[event] - 1
        if count:
            self._counts[event] = count
            return False
        del self._counts[event]
        return True
