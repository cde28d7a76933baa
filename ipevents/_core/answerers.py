"""How many processes answer requests of an event: here, and in the subtree of each neighbour below.

A parent is told the sum for each event. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

Sums = tuple[tuple[str, int], ...]  # events with how many answer them, here and below


class Answerers:
    """The number of answering processes by source: the link of a child, or a mark for this process itself."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, dict[str, int]] = {}
        self._sums: dict[str, int] = {}

    def of(self, source: Hashable, event: str) -> int:
        """Return how many processes answer an event there."""
        counts = self._counts.get(source)
        return 0 if counts is None else counts.get(event, 0)

    def size(self, source: Hashable) -> int:
        """Return how many events are answered there."""
        return len(self._counts.get(source, ()))

    def sum(self, event: str) -> int:
        """Return how many processes answer an event, here and below."""
        return self._sums.get(event, 0)

    def sums(self) -> Sums:
        """Return that for all events: what a new parent is told."""
        return tuple(sorted(self._sums.items()))

    def set(self, source: Hashable, event: str, count: int) -> Sums:
        """Note how many processes answer an event there. Returns what has changed in the sums."""
        counts = self._counts.setdefault(source, {})
        more = count - counts.get(event, 0)
        if count:
            counts[event] = count
        else:
            counts.pop(event, None)
        if not counts:
            del self._counts[source]
        return self._add(((event, more),)) if more else ()

    def replace(self, source: Hashable, events: Iterable[str]) -> Sums:
        """Make these events all that one process at the source answers. Returns what has changed."""
        before = self._counts.pop(source, {})
        now = dict.fromkeys(events, 1)
        if now:
            self._counts[source] = now
        names = dict.fromkeys((*before, *now))
        return self._add((name, now.get(name, 0) - before.get(name, 0)) for name in names)

    def forget(self, source: Hashable) -> Sums:
        """Remove a source. Returns what has changed in the sums."""
        return self.replace(source, ())

    def _add(self, more: Iterable[tuple[str, int]]) -> Sums:
        changed = []
        for event, count in more:
            if count:
                total = self._sums.get(event, 0) + count
                if total:
                    self._sums[event] = total
                else:
                    del self._sums[event]
                changed.append((event, total))
        return tuple(changed)
