"""How many items of a ``map`` go into one job, where the caller has not said: by the time that items take.

A job costs the two processes and the way between them some time, say 0.1 ms, whatever is done in it. So fast
items share a job, a chunk. It is to take about AIM_SECONDS. Not longer: a worker gets more than one job ahead
only while jobs take less than that, and what is ahead of a worker that falls behind has to be taken back. And
not much shorter: then the cost of the jobs would count. A chunk of that length is also long enough for its
answer to be written at once, which is after 1 ms, so that the items of a map come steadily.

The first chunk is one item, because nothing is known of it. Chunks grow only by what was measured, and only
step by step, so that a slow item after many fast ones is not in a chunk with thousands more. They shrink at
once. Where it is known how many items are left, chunks become smaller towards the end, so that no worker has
a long one while the others have nothing to do any more ("guided self-scheduling", Polychronopoulos and Kuck,
1987).

Pure, and without a lock: one thread asks, and is told what the workers have measured.
"""

from __future__ import annotations

__all__ = ["AIM_SECONDS", "GROWTH", "MOST_ITEMS", "Chunks"]

AIM_SECONDS = 0.005  # guarantee 5 of requests: more than one job ahead only below that
MOST_ITEMS = 10_000  # of items that take no time: their arguments and results are one message each way
GROWTH = 4  # from one chunk to the next at most

_KEPT = 0.75  # of what was measured so far, with each further chunk: about the last four count
_LATE = 2.0  # times as long as expected, and longer than aimed at: what was measured before counts no more


class Chunks:
    """The sizes of the chunks of one ``map``.

    ``length`` is how many items there are in all, None if that is not known; ``workers`` is between how many
    processes they are divided. A length that turns out to be wrong does no harm beyond smaller chunks.
    """

    __slots__ = ("_given", "_items", "_left", "_seconds", "_size", "_workers")

    def __init__(self, workers: int = 1, length: int | None = None) -> None:
        self._workers = max(workers, 1)
        self._left = length
        self._size = 1  # by what was measured
        self._given = 1  # the last one that was returned
        self._items = 0.0  # measured, older ones counting less
        self._seconds = 0.0  # that those have taken

    def next_size(self) -> int:
        """Return how many items the next chunk has, at least 1. They count as given out."""
        size = min(self._size, GROWTH * self._given)
        if self._left is not None:
            size = max(1, min(size, self._left // (2 * self._workers)))
            self._left -= size
        self._given = size
        return size

    def took(self, items: int, seconds: float) -> None:
        """Note that a worker has done a chunk of so many items in so many seconds."""
        if items < 1:
            return
        if seconds > AIM_SECONDS and seconds * self._items > _LATE * self._seconds * items:
            self._items = self._seconds = 0.0
        self._items = self._items * _KEPT + items
        self._seconds = self._seconds * _KEPT + seconds
        # Many chunks of one size are measured at the same time. All together they say no more of larger ones
        # than one of them does.
        most = min(max(self._size, GROWTH * items), MOST_ITEMS)
        if self._seconds * most <= AIM_SECONDS * self._items:  # also where they took no time at all
            self._size = most
        else:
            self._size = max(1, int(AIM_SECONDS * self._items / self._seconds))
