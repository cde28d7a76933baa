"""How much of what waits in the outbox to the parent is news from which neighbour: who came, and who went.

News of processes below are never dropped, since each process has one ``online`` and one ``offline`` in all
processes above it. So where the parent does not read they have to wait, and whoever brings more of them has
to wait as well. Each neighbour has a share, so that one whose processes come and go all the time does not
hold up the others. Pure: the caller holds the state lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable

SHARE_BYTES = 4 << 20  # of one neighbour
ALL_BYTES = 16 << 20  # of all neighbours together: in any case the outbox has room for events
_NEWS_BYTES = 128  # estimates: what one record costs beside its pids, and a pid beside its text
_PID_BYTES = 64


class Shares:
    """The news that wait in one outbox. They leave it in the order in which they were put.

    The control records of an outbox have numbers: the first one that was put has 1.
    """

    __slots__ = ("_sizes", "_total", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Hashable, int]] = deque()  # number, neighbour, bytes
        self._sizes: dict[Hashable, int] = {}
        self._total = 0

    def add(self, source: Hashable, number: int, size: int) -> None:
        """Note that news from this neighbour were put as the control record with this number."""
        self._waiting.append((number, source, size))
        self._sizes[source] = self._sizes.get(source, 0) + size
        self._total += size

    def is_used_up(self, source: Hashable, taken: int) -> bool:
        """Return whether so much waits that the neighbour may bring no more.

        The control records up to number ``taken`` have left the outbox.
        """
        waiting, sizes = self._waiting, self._sizes
        while waiting and waiting[0][0] <= taken:
            _, other, size = waiting.popleft()
            self._total -= size
            sizes[other] -= size
            if not sizes[other]:
                del sizes[other]
        return sizes.get(source, 0) >= SHARE_BYTES or self._total >= ALL_BYTES


def size_of(*paths: Iterable[str]) -> int:
    """Return about how many bytes a record with these paths takes."""
    return _NEWS_BYTES + sum(len(pid) + _PID_BYTES for path in paths for pid in path)
