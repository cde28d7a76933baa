"""Pools in one process: their workers are sockets, or threads of the test."""

from __future__ import annotations

import weakref
from typing import Any

from asked import settled
from places import CEILING, Raw

from ipevents._ask.pool import Pool
from ipevents._core.messages import ANSWER, ANSWERS, LAST_EVENT, LAST_MESSAGE, ONLINE
from ipevents._core.requests import VALUE
from ipevents._payload.numbered import numbers_of
from ipevents._platform.latches import Latch

EVENT = "ipevents.pool.test"


class Worker:
    """A child that does nothing by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = Latch()


class Staff:
    """What starts and stops workers: it only notes that."""

    def __init__(self, *, at_most: int = 1000) -> None:
        self.at_most = at_most
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.reliable: list[str] = []
        self.stop_ends = True
        self.pool: weakref.ref[Pool] | None = None

    def start(self, name: str, pool: weakref.ref[Pool]) -> Worker:
        if len(self.started) == self.at_most:
            raise OSError("there is no process left")
        self.started.append(name)
        self.pool = pool
        return Worker(name)

    def stop(self, worker: Worker) -> None:
        self.stopped.append(worker.name)
        if self.stop_ends:
            worker.ended.set()

    def ended(self, worker: Worker) -> Latch:
        return worker.ended

    def is_reliable(self, worker: Worker) -> None:
        self.reliable.append(worker.name)


def make_pool(place: Any, staff: Staff, count: int = 2, *, has_initializer: bool = False) -> Pool:
    return Pool(place.asks, staff, EVENT, count, "pool", has_initializer=has_initializer)


class Hand:
    """A worker that is only a socket: the test reads its jobs, and answers them."""

    def __init__(self, place: Any, child: Raw) -> None:
        self.child = child
        child.send((ONLINE, (child.pid,)))
        child.send((ANSWERS, EVENT, 1, 1))
        settled(place, child)

    def until_job(self) -> tuple[list[bytes], int, Any]:
        """The keys of functions that come before the next job, its number, and its payload."""
        keys = []
        while True:
            for record in self.child.next_records():
                if record[0] <= LAST_EVENT and record[2] == EVENT:
                    keys += [payload[0] for payload in record[4]]
                elif LAST_EVENT < record[0] <= LAST_MESSAGE:
                    payload = record[4][0]  # others that came with it are not looked at
                    return keys, numbers_of(payload)[0], payload

    def answers(self, number: int, value: object) -> None:
        self.child.send((ANSWER, (self.child.pid,), EVENT, None, [(number, VALUE, value)]))

    def does(self, value: object, answer: Any) -> list[bytes]:
        """Answer the next job, and wait until that has come; returns the keys of new functions."""
        keys, number, _ = self.until_job()
        self.answers(number, value)
        assert answer.result(CEILING) == value
        return keys
