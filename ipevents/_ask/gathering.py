"""``requestAll``: the answers of all processes, in the order in which they come."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from .._core.crew import Work
from .._core.messages import Payload
from .._core.requests import SPLIT
from .._exceptions import IPEventsError, RequestTimeout, WouldDeadlock
from .._platform.guards import foreign
from .._platform.latches import Latch
from .._platform.threads import Deadline
from .asking import Asking
from .outcome import Question, unanswered, value_of


class Arrivals:
    """The sink of a request to all: what has come, and is not taken yet.

    Reader threads put answers into the queue, and set the latch that the iterating thread waits for. It is
    apart from the iterator, because it is known to ``Asking`` as long as the request is open.
    """

    __slots__ = (
        "_asked",
        "cause",
        "changed",
        "error",
        "is_many",
        "is_over",
        "left",
        "places",
        "queue",
        "work",
    )

    def __init__(self, asked: Question) -> None:
        self._asked = asked
        self.is_many = True  # all its answers come under the state lock, so the last one is the last
        self.cause: BaseException | None = None
        self.places: tuple[tuple[Any, int], ...] = ()
        self.work: Work | None = None
        self.left = 0
        self.queue: queue.SimpleQueue[tuple[str, str, int, Payload]] = queue.SimpleQueue()
        self.changed = Latch()
        self.is_over = False
        self.error: IPEventsError | None = None

    def came(self, pid: str, name: str, status: int, payload: Payload, is_last: bool) -> None:
        """Take one of the answers."""
        if status != SPLIT:
            self.queue.put((pid, name, status, payload))
        if is_last:
            self.is_over = True
        self.changed.set()

    def failed(self, exc: IPEventsError) -> None:
        """Take an error in place of all that were still to come."""
        self.error = unanswered(self._asked, exc)
        self.is_over = True
        self.changed.set()

    def expired(self) -> None:
        """The thread that iterates looks at the time itself."""


class Gathering:
    """An iterator over the pids of those that have answered, each with its value or its exception.

    One thread iterates at a time. Where nobody has it any more, the request is given up.
    """

    def __init__(self, asking: Asking, asked: Question) -> None:
        self._asking = asking
        self._asked = asked
        self._deadline = Deadline(asked.seconds)
        self.arrivals = Arrivals(asked)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self

    def __next__(self) -> tuple[str, Any]:
        arrivals = self.arrivals
        while True:
            changed = arrivals.changed = Latch()
            is_over = arrivals.is_over  # before the queue is looked at: the last one is put first
            try:
                pid, name, status, payload = arrivals.queue.get_nowait()
            except queue.Empty:
                if is_over:
                    error, arrivals.error = arrivals.error, None
                    if error is not None:
                        raise error from None
                    raise StopIteration from None
                if arrivals.is_over or not arrivals.queue.empty():
                    continue
                self._wait(changed)
                continue
            try:
                return pid, value_of(self._asked, pid, name, status, payload)
            except foreign() as exc:
                return pid, exc

    def _wait(self, changed: Latch) -> None:
        """Wait for another answer. Raises RequestTimeout, once, when the time is over."""
        if self._asking.node.dispatcher.must_not_wait():
            raise WouldDeadlock("requestAll() waits, and no answer is delivered while a listener runs")
        try:
            came = changed.wait(self._deadline.left())
        except BaseException:  # of a signal handler: this ends the iterator, as it ends a generator
            self.close()
            raise
        if not came:
            self.close()
            raise RequestTimeout(self._asked.event, "", self._asked.seconds or 0.0)

    def close(self) -> None:
        """Want no further answers. Those that have not begun with theirs never do."""
        self.arrivals.is_over = True
        self._asking.give_up(self.arrivals)

    def __del__(self) -> None:
        if not self.arrivals.is_over:
            self.arrivals.is_over = True
            self._asking.give_up_later(self.arrivals)
