"""Which functions a worker process of a pool has been sent, so that each is sent once while it is in use.

A worker keeps what it was sent, and that is bounded. It does not decide itself what it lets go of: whoever
sends decides, here, and says so with the function that needs the room. The worker obeys that list, so the two
can not disagree, as long as it takes what it is sent in the order in which it was asked for here. That also
holds for a job that is taken back before it has begun: what came with it the worker keeps all the same.

Pure, and without a lock. There is one of these for each worker process: a new process knows nothing.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["MOST_BYTES", "MOST_FUNCTIONS", "KnownFunctions"]

MOST_FUNCTIONS = 256  # as many as the jobs that may wait in a worker: each may have a function of its own
MOST_BYTES = 16 << 20  # of their pickles, which is about what the functions themselves take

_IS_KNOWN: tuple[bool, tuple[bytes, ...]] = (False, ())


class KnownFunctions:
    """The functions that one process has, by their keys: at most ``most``, of ``most_bytes`` together.

    A single one that is larger than that is all that the process has.
    """

    __slots__ = ("_bytes", "_most", "_most_bytes", "_sizes")

    def __init__(self, most: int = MOST_FUNCTIONS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # the least recently used first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def needs(self, key: bytes, size: int) -> tuple[bool, tuple[bytes, ...]]:
        """Note that a job with this function goes to the process next.

        Returns whether the function has to be sent with it, and the keys of those that the process has to
        forget before it takes that one. ``size`` is that of its pickle in bytes, each time the same.
        """
        sizes = self._sizes
        if key in sizes:
            sizes.move_to_end(key)
            return _IS_KNOWN
        forgotten = []
        while sizes and (len(sizes) >= self._most or self._bytes + size > self._most_bytes):
            oldest, freed = sizes.popitem(last=False)
            self._bytes -= freed
            forgotten.append(oldest)
        sizes[key] = size
        self._bytes += size
        return True, tuple(forgotten)
