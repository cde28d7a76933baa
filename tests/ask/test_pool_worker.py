"""What the main thread of a worker runs: here it is a thread of the test, and the parent another node."""

from __future__ import annotations

import threading

import pytest
from places import CEILING, join, settle
from staffs import EVENT, Staff, make_pool

from ipevents._ask import pool_worker
from ipevents._exceptions import AnswererLost


class Running:
    """A thread that is the main thread of a worker."""

    def __init__(self, place, initializer=None, initargs=(), max_jobs=None, max_memory=None):
        self.raised = None
        self._args = (place.asks, EVENT, initializer, initargs, max_jobs, max_memory)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            pool_worker.work(*self._args)
        except BaseException as exc:  # the test looks at it
            self.raised = exc

    def end(self):
        self._thread.join(CEILING)
        assert not self._thread.is_alive(), "it does not end"
        return self.raised


@pytest.fixture
def both(places):
    """A process with a pool, and its worker."""
    parent, child = places("1"), places("2")
    parent.node.announced = True
    join(parent, child, is_quiet=True)
    return make_pool(parent, Staff(), 1), parent, child


def stop(child):
    """As a stop does."""
    child.asks.answering.close_bench(EVENT)


def test_it_does_jobs_until_a_stop(both):
    pool, _, child = both
    running = Running(child)
    assert [pool.submit(abs, -number).result(CEILING) for number in range(20)] == list(range(20))
    assert list(pool.map(abs, range(-50, 0), timeout=CEILING)) == list(range(50, 0, -1))
    stop(child)
    assert running.end() is None


def test_the_initializer_runs_before_the_first_job(both):
    pool, _, child = both
    called = []
    running = Running(child, lambda *args: called.append(args), (1, 2))
    assert pool.submit(abs, -1).result(CEILING) == 1
    assert called == [(1, 2)]
    stop(child)
    assert running.end() is None


def test_a_worker_whose_initializer_raises_takes_no_job(both):
    pool, parent, child = both

    def fail():
        raise LookupError("mine")

    assert type(Running(child, fail).end()) is LookupError
    answer = pool.submit(abs, -1)
    settle(parent, child)
    assert not answer.done()
    assert pool.pids == []
    running = Running(child)  # the next one
    assert answer.result(CEILING) == 1
    stop(child)
    running.end()


def test_after_so_many_jobs_it_ends_and_what_waits_is_left_to_the_next_one(both, places):
    pool, parent, child = both
    answers = [pool.submit(abs, -number) for number in range(5)]
    assert Running(child, max_jobs=2).end() is None
    assert [answer.result(CEILING) for answer in answers[:2]] == [0, 1]
    settle(parent, child)
    assert [answer.done() for answer in answers[2:]] == [False] * 3
    other = places("3")
    join(parent, other, is_quiet=True)
    assert Running(other, max_jobs=3).end() is None
    assert [answer.result(CEILING) for answer in answers] == list(range(5))


def test_a_job_whose_cancel_has_come_before_it_never_begins(both):
    pool, parent, child = both
    running = Running(child)
    assert pool.submit(abs, -1).result(CEILING) == 1
    with child.node.lock:
        child.asks.answering.cancel_early(child.link_to(parent), 2)  # the number of the next one
    exc = pool.submit(abs, -2).exception(CEILING)
    assert (type(exc), exc.begun) == (AnswererLost, False)
    assert pool.submit(abs, -3).result(CEILING) == 3
    stop(child)
    assert running.end() is None


def test_a_chunk_of_a_map_is_one_job(both):
    pool, _, child = both
    found = pool.map(abs, range(-10, 0), chunksize=10, timeout=CEILING)
    assert Running(child, max_jobs=1).end() is None
    assert list(found) == list(range(10, 0, -1))


@pytest.mark.parametrize(("used", "limit", "done"), [(100, 100, 3), (101, 100, 1)])
def test_with_more_memory_than_allowed_it_begins_no_other_job(both, monkeypatch, used, limit, done):
    pool, _, child = both
    monkeypatch.setattr(pool_worker, "resident_bytes", lambda: used)
    answers = [pool.submit(abs, -number) for number in range(3)]
    assert Running(child, max_jobs=3, max_memory=limit).end() is None
    assert [answer.result(CEILING) for answer in answers[:done]] == list(range(done))
    assert [answer.done() for answer in answers[done:]] == [False] * (3 - done)


def test_it_leaves_nothing_behind(both):
    pool, _, child = both
    answer = pool.submit(abs, -1)
    assert Running(child, max_jobs=1).end() is None
    assert answer.result(CEILING) == 1
    assert not child.asks.answering.answers(EVENT)
    assert list(child.node.dispatcher.listeners(EVENT)) == []
