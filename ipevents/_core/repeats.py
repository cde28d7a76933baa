"""Which of many reports of one kind are told: one in a certain time, and with it how many more there were.

A kind is any hashable value. Between ``comes`` and ``told`` a report may wait in a queue. While one of a kind
waits, no other of that kind is to be queued, so the queue has at most one for each kind. Pure and without a
lock: the caller has one where several threads report.
"""

from __future__ import annotations

from collections.abc import Hashable

MAX_KINDS = 1024  # that are remembered


class _Kind:
    """When a report of this kind was told last, how many others came since, and whether one waits."""

    __slots__ = ("hidden", "is_waiting", "last")

    def __init__(self) -> None:
        self.last: float | None = None
        self.hidden = 0
        self.is_waiting = False


class Repeats:
    """The kinds of reports that came, at most ``most`` of them."""

    def __init__(self, most: int = MAX_KINDS) -> None:
        self._most = most
        self._kinds: dict[Hashable, _Kind] = {}

    def __len__(self) -> int:
        return len(self._kinds)

    def comes(self, kind: Hashable, now: float, seconds: float) -> bool:
        """Note a report, and return whether it is to be told; if so, the caller calls ``told`` when it is.

        It is not if another one of its kind waits, or was told less than ``seconds`` ago. Then it is counted.
        """
        known = self._kinds.get(kind)
        if known is None:
            self._make_room()
            known = self._kinds[kind] = _Kind()
        if known.is_waiting or (known.last is not None and now - known.last < seconds):
            known.hidden += 1
            return False
        known.is_waiting = True
        return True

    def told(self, kind: Hashable, now: float) -> int:
        """Note that the report that waited is told now. Returns how many others came since the last one."""
        known = self._kinds.get(kind)
        if known is None:
            return 0
        hidden, known.hidden = known.hidden, 0
        known.last = now
        known.is_waiting = False
        return hidden

    def nothing_waits(self) -> None:
        """Note that what waited will not be told: its queue is gone. It counts as one that came."""
        for known in self._kinds.values():
            known.hidden += known.is_waiting
            known.is_waiting = False

    def _make_room(self) -> None:
        """Forget all kinds of which none waits, if there are too many; where all wait, the oldest ones."""
        if len(self._kinds) < self._most:
            return
        waiting = {kind: known for kind, known in self._kinds.items() if known.is_waiting}
        while len(waiting) >= self._most:
            del waiting[next(iter(waiting))]
        self._kinds = waiting


def more(hidden: int, what: str = "told") -> str:
    """Return the words by which a text says how many others of its kind came before it."""
    return f" ({hidden} more of this kind were not {what})" if hidden else ""
