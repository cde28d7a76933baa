"""The deadlines of requests: as they are sent, and of those that wait here."""

from __future__ import annotations

import heapq
import itertools

from .._links.link import Link
from .._node.node import Node
from .._platform.clock import monotonic
from .job import Sink, tell

_LATEST = (1 << 63) - 1  # deadline that can be written, see numbered.py
_PURGE = 1000  # deadlines of requests that are answered, beside as many as are open


class Deadlines:
    """The requests of one node that end at a time. The state lock guards them.

    The supervisor's thread looks when the first is due; a node that has none costs nothing.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._serials = itertools.count()
        self._heap: list[tuple[float, int, Sink]] = []  # when, and in which order they came
        self._purge_at = _PURGE

    def add(self, sink: Sink, seconds: float) -> None:
        """Have the sink told after so many seconds, unless the request is answered before. Lock not held."""
        with self._node.lock:
            if not sink.left:
                return
            if len(self._heap) >= self._purge_at:  # mostly of requests that are answered
                self._heap = [entry for entry in self._heap if entry[2].left]
                heapq.heapify(self._heap)
                self._purge_at = 2 * len(self._heap) + _PURGE
            heapq.heappush(self._heap, (monotonic() + seconds, next(self._serials), sink))
            if self._heap[0][2] is sink:
                self._look_after(seconds)

    def clear(self) -> None:
        """Forget all of them. State lock held."""
        self._heap = []

    def _look_after(self, seconds: float) -> None:
        """Have the deadlines looked at after so many seconds. State lock held."""
        self._node.timers.cancel(self)
        self._node.timers.after(seconds, self, self._look)

    def _look(self) -> None:
        """End the requests whose time is over. In the supervisor's thread."""
        due = []
        with self._node.lock:
            now = monotonic()
            while self._heap and self._heap[0][0] <= now:
                _, _, sink = heapq.heappop(self._heap)
                if sink.left:
                    due.append(sink)
            if self._heap:
                self._look_after(max(0.0, self._heap[0][0] - now))
        for sink in due:
            tell(sink.expired)


def is_remote(link: Link) -> bool:
    """Return whether the clock at the other end may be another one: it is over TCP, or not known."""
    if not link.is_public:
        return False
    stream = link.connection or link.away
    return stream is None or stream.seals is not None


def here(deadline: int) -> int:
    """Return a deadline as this process counts: from the time left if it came from another machine."""
    return deadline if deadline >= 0 else min(int(monotonic() * 1000) - deadline, _LATEST)


def there(deadline: int, is_remote: bool) -> int:
    """Return a deadline as it is sent: the time left, negative, where the clocks may differ."""
    if deadline and is_remote:
        return -max(1, deadline - int(monotonic() * 1000))
    return deadline
