"""Who answers a request that has come: the thread that begins it, or that cancels it or gives it back.

Each request is claimed once. What waits for a thread is claimed by being taken out of ``_waiting``, a dict
out of which threads take entries in one step each. What is answered in the turn of a listener waits for
nobody: whoever is about to begin it has the last word, in ``comes``.

The parent takes requests to any back by a record that may overtake them, and that another thread handles
than the one which reads them. So what was taken back is noted until it comes, and what has come until the
link ends: numbers of a link come in their order, so the last one says it of all. The reader notes first that
a number has come, and then looks whether it was taken back; ``take_back`` notes first that it was, and then
looks whether it has come. So at least one of the two sees the other, and the lock decides.

The lock is the state lock of the node. It guards ``_taken``. ``_come`` is written by the reader of each link.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._links.link import Link
from .._node.node import Node
from .job import Job

MAX_TAKEN = 10_000  # of one link that were taken back and have not come yet: no more are remembered


class Claims:
    """The requests of one node that wait for threads, and those to any that were taken back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: dict[tuple[Link | None, int], Job] = {}
        self._taken: dict[Link, set[int]] = {}  # that have not come yet
        self._come: dict[Link, int] = {}  # the number of the last one that was begun, queued or given on

    def wait(self, jobs: Iterable[Job]) -> None:
        """Note that requests wait for a thread. To be called before any thread can see them."""
        self._waiting.update([((job.link, job.number), job) for job in jobs])

    def claim(self, job: Job) -> bool:
        """Return whether a request that waits is the caller's to answer: nobody else has claimed it."""
        return self.take(job.link, job.number) is not None

    def take(self, link: Link | None, number: int) -> Job | None:
        """Claim the request that waits under this number, None where none does."""
        return self._waiting.pop((link, number), None)

    def comes(self, link: Link, number: int) -> bool:
        """Note that a request to any is about to be begun, or to be given on.

        Returns whether it was taken back before, so that it was answered by that. In the reader thread.
        """
        self._come[link] = number  # before the next line, see above
        return bool(self._taken) and bool(self.have_come(link, (number,)))

    def have_come(self, link: Link, numbers: Iterable[int]) -> set[int]:
        """Note that requests to any have come, and return those that were taken back before.

        Those that wait for a thread are claimed by that. In the reader thread; ``numbers`` are in order.
        """
        numbers = tuple(numbers)
        self._come[link] = numbers[-1]  # before the next line, see above
        if link not in self._taken:
            return set()
        with self._node.lock:
            taken = self._taken.get(link, set())
            found = taken.intersection(numbers)
            taken -= found
            if not taken:
                self._taken.pop(link, None)
        for number in found:
            self.take(link, number)
        return found

    def take_back(self, link: Link, numbers: Iterable[int]) -> list[int]:
        """Return those of these requests that are not begun, and never will be. Lock held."""
        taken = self._taken.setdefault(link, set())
        found = []
        for number in numbers:
            if self.take(link, number) is None:
                if len(taken) >= MAX_TAKEN:
                    continue
                taken.add(number)
                if self._come.get(link, 0) >= number:
                    taken.discard(number)
                    if self.take(link, number) is None:  # it may have come since the first look
                        continue
            found.append(number)
        if not taken:
            del self._taken[link]
        return found

    def forget(self, link: Link) -> None:
        """Forget the numbers of a link: another process follows at it, or none. Lock held."""
        self._taken.pop(link, None)
        self._come.pop(link, None)
