"""How many processes answer requests of an event: here, and in the subtree of each neighbour below.

With it goes their *capacity*: how many requests they work on at once, one or as many as they have threads. A
parent is told the sums of both for each event. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

Sums = tuple[tuple[str, int, int], ...]  # events with how many answer them, here and below, and the capacity
_NONE = (0, 0)


class Answerers:
    """The answering processes by source: the link of a child, or a mark for this process itself."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, dict[str, tuple[int, int]]] = {}
        self._sums: dict[str, tuple[int, int]] = {}

    def of(self, source: Hashable, event: str) -> int:
        """Return how many processes answer an event there."""
        counts = self._counts.get(source)
        return 0 if counts is None else counts.get(event, _NONE)[0]

    def capacity(self, source: Hashable, event: str) -> int:
        """Return how many requests of an event are worked on there at once."""
        counts = self._counts.get(source)
        return 0 if counts is None else counts.get(event, _NONE)[1]

    def sources(self, event: str) -> Iterator[tuple[Hashable, int]]:
        """Yield the sources at which an event is answered, each with its capacity."""
        for source, counts in self._counts.items():
            if event in counts:
                yield source, counts[event][1]

    def size(self, source: Hashable) -> int:
        """Return how many events are answered there."""
        return len(self._counts.get(source, ()))

    def sum(self, event: str) -> int:
        """Return how many processes answer an event, here and below."""
        return self._sums.get(event, _NONE)[0]

    def sums(self) -> Sums:
        """Return that for all events, with the capacities: what a new parent is told."""
        return tuple([(event, *counted) for event, counted in sorted(self._sums.items())])

    def set(self, source: Hashable, event: str, count: int, capacity: int) -> Sums:
        """Note how many processes answer an event there. Returns what has changed in the sums."""
        counts = self._counts.setdefault(source, {})
        before = counts.get(event, _NONE)
        now = (count, max(count, capacity)) if count else _NONE
        if count:
            counts[event] = now
        else:
            counts.pop(event, None)
        if not counts:
            del self._counts[source]
        return self._add([(event, before, now)])

    def replace(self, source: Hashable, events: Iterable[tuple[str, int]]) -> Sums:
        """Make these events, each with its capacity, all that one process at the source answers.

        Returns what has changed.
        """
        before = self._counts.pop(source, {})
        now = {event: (1, max(1, capacity)) for event, capacity in events}
        if now:
            self._counts[source] = now
        names = dict.fromkeys((*before, *now))
        return self._add([(name, before.get(name, _NONE), now.get(name, _NONE)) for name in names])

    def forget(self, source: Hashable) -> Sums:
        """Remove a source. Returns what has changed in the sums."""
        return self.replace(source, ())

    def _add(self, changes: Iterable[tuple[str, tuple[int, int], tuple[int, int]]]) -> Sums:
        """Note what has changed: events, each with what one source had before and has now."""
        changed = []
        for event, before, now in changes:
            if before == now:
                continue
            count, capacity = self._sums.get(event, _NONE)
            total = (count - before[0] + now[0], capacity - before[1] + now[1])
            if total[0]:
                self._sums[event] = total
            else:
                del self._sums[event]
            changed.append((event, *total))
        return tuple(changed)
