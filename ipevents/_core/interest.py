"""Who wants which event: counts per name, so that only 0 to 1 and 1 to 0 are told upwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Change(NamedTuple):
    """What has to be told upwards: names to advertise and names to withdraw."""

    advertise: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()


class Interest:
    """The sum of what this process and the subtrees below it listen to.

    ``source`` is anything hashable: a link, or this process itself. Each source counts once per name.
    """

    def __init__(self) -> None:
        self._names: dict[object, set[str]] = {}
        self._counts: dict[str, int] = {}

    def of(self, source: object) -> frozenset[str]:
        """The names that one source wants."""
        return frozenset(self._names.get(source, ()))

    def all(self) -> tuple[str, ...]:
        """Every name that somebody wants, sorted: what a new parent has to be told."""
        return tuple(sorted(self._counts))

    def wants(self, source: object, event: str) -> bool:
        names = self._names.get(source)
        return names is not None and event in names

    def add(self, source: object, event: str) -> Change:
        names = self._names.setdefault(source, set())
        if event in names:
            return Change()
        names.add(event)
        count = self._counts.get(event, 0)
        self._counts[event] = count + 1
        return Change(advertise=(event,)) if count == 0 else Change()

    def remove(self, source: object, event: str) -> Change:
        names = self._names.get(source)
        if names is None or event not in names:
            return Change()
        names.discard(event)
        if not names:
            del self._names[source]
        return Change(withdraw=(event,)) if self._lower(event) else Change()

    def add_all(self, source: object, events: Iterable[str]) -> Change:
        """The source wants these as well."""
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
        """The source is gone with all it wanted."""
        return self.replace(source, ())

    def _lower(self, event: str) -> bool:
        count = self._counts[event] - 1
        if count:
            self._counts[event] = count
            return False
        del self._counts[event]
        return True
