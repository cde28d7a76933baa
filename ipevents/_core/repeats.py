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
    """The kinds of reports that came, at most ``most`` of them.

    With ``strict``, ``most`` is a limit of what is told as well: while so many kinds wait, or were told too
    short a time ago, nothing of another kind is to be told. It is counted, see ``take_others``.
    """

    def __init__(self, most: int = MAX_KINDS, *, strict: bool = False) -> None:
        self._most = most
        self._strict = strict
        self._kinds: dict[Hashable, _Kind] = {}
        self._others = 0  # reports of kinds that are not remembered
        self._full_until: float | None = None  # no look for what can be forgotten before that

    def __len__(self) -> int:
        return len(self._kinds)

    def comes(self, kind: Hashable, now: float, seconds: float) -> bool:
        """Note a report, and return whether it is to be told; if so, the caller calls ``told`` when it is.

        It is not if another one of its kind waits, or was told less than ``seconds`` ago. Then it is counted.
        """
        known = self._kinds.get(kind)
        if known is None:
            if not self._has_room(now, seconds):
                self._others += 1
                return False
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

    def take_others(self) -> int:
        """Return how many reports of kinds that are not remembered came since the last call."""
        others, self._others = self._others, 0
        return others

    def _has_room(self, now: float, seconds: float) -> bool:
        """Return whether one more kind can be remembered. If there are too many, make room for it."""
        if len(self._kinds) < self._most:
            return True
        if self._strict:
            return self._forget_old(now, seconds)
        self._forget()
        return True

    def _forget_old(self, now: float, seconds: float) -> bool:
        """Forget all kinds that hold nothing up any more. Returns whether there are any.

        If there are none, the next look comes a little later: it goes through all kinds, and reports may come
        fast.
        """
        if self._full_until is not None and now < self._full_until:
            return False
        kept = {}
        for kind, known in self._kinds.items():
            if known.is_waiting or (known.last is not None and now - known.last < seconds):
                kept[kind] = known
            else:
                self._others += known.hidden
        self._kinds = kept
        is_full = len(kept) >= self._most
        self._full_until = now + seconds / 10 if is_full else None
        return not is_full

    def _forget(self) -> None:
        """Forget all kinds of which none waits; where all wait, the oldest ones."""
        waiting = {kind: known for kind, known in self._kinds.items() if known.is_waiting}
        while len(waiting) >= self._most:
            del waiting[next(iter(waiting))]
        self._kinds = waiting


def more(hidden: int, what: str = "told", others: int = 0) -> str:
    """Return the words by which a text says how many others came before it, of its kind and of others."""
    if not others:
        return f" ({hidden} more of this kind were not {what})" if hidden else ""
    return f" ({hidden} more of this kind and {others} of others were not {what})"
