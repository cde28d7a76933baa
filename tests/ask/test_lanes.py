"""The threads that answer one event: how many there are, in which order they begin, and how they end."""

from __future__ import annotations

import queue
import threading

import pytest

from ipevents._ask import lanes as module
from ipevents._ask.job import Job
from ipevents._ask.lanes import Lanes
from ipevents._core.messages import REQUEST, Envelope
from ipevents._platform.state_lock import StateLock
from ipevents._platform.threads import Deadline

CEILING = 20.0  # reached only in a deadlock
ENVELOPE = Envelope(REQUEST, ("1",), "x", lambda *reply: None)


def job(number):
    return Job(None, number, 0, ENVELOPE, (number, 0))


class Work:
    """What is called in the threads. Each job waits there until it is let go."""

    def __init__(self, count):
        self.begun = []  # numbers, in the order in which they were begun
        self.running = queue.Queue()
        self.threads = set()
        self._may_end = threading.Semaphore(0)
        self.lock = StateLock(lambda exc: None)
        self.lanes = Lanes("x", count, self.lock, self._work, self._begins)

    def _begins(self, job):
        assert self.lock._is_owned()
        self.begun.append(job.number)

    def _work(self, job):
        assert not self.lock._is_owned()
        self.threads.add(threading.current_thread().name)
        self.running.put(job.number)
        assert self._may_end.acquire(timeout=CEILING)

    def put(self, *numbers):
        for number in numbers:
            assert self.lanes.put(job(number)) == (True, [])

    def drop(self, is_dropped):
        with self.lock:
            return self.lanes.drop(is_dropped)

    def wait_idle(self, count=1):
        """Wait until so many threads wait for a job."""
        while self.lanes._idle < count:
            pass

    def next(self):
        return self.running.get(timeout=CEILING)

    def let_go(self, count):
        self._may_end.release(count)

    def end(self):
        self.lanes.close()
        self.let_go(100)
        assert self.lanes.join(Deadline(CEILING))


@pytest.fixture
def work(request):
    made = Work(request.param)
    yield made
    made.end()


def of(count):
    return pytest.mark.parametrize("work", [count], indirect=True)


@of(3)
def test_as_many_run_at_once_as_there_are_threads(work):
    work.put(1, 2, 3, 4, 5)
    assert {work.next() for _ in range(3)} == {1, 2, 3}
    assert work.lanes.waiting() == 2
    work.let_go(2)
    assert {work.next() for _ in range(2)} == {4, 5}
    assert work.threads == {f"ipevents-answers-x-{number}" for number in (1, 2, 3)}


@of(4)
def test_no_thread_is_started_where_one_is_idle(work):
    work.put(1)
    work.next()
    work.let_go(1)
    work.wait_idle()
    work.put(2)
    work.next()
    assert work.threads == {"ipevents-answers-x-1"}


@of(2)
def test_what_is_idle_counts_once_for_what_comes_together(work):
    work.put(1)
    work.next()
    work.let_go(1)
    work.wait_idle()
    with work.lock:  # it cannot take the first before the second is there
        work.put(2)
        assert work.lanes._idle == 1
        work.put(3)
    assert {work.next(), work.next()} == {2, 3}


@of(3)
def test_jobs_are_begun_in_the_order_in_which_they_came(work):
    work.let_go(500)
    work.put(*range(500))
    for _ in range(500):
        work.next()
    assert work.begun == list(range(500))


@of(1)
def test_what_is_dropped_is_never_begun(work):
    work.put(1, 2, 3, 4)
    work.next()
    assert [each.number for each in work.drop(lambda job: job.number % 2 == 0)] == [2, 4]
    assert work.drop(lambda job: job.number == 99) == []
    work.let_go(2)
    assert work.next() == 3
    assert work.begun == [1, 3]


@of(1)
def test_what_waits_is_not_compared_with_all_that_is_dropped(work):
    compared = []

    class Compared(Job):
        __slots__ = ()
        __hash__ = None

        def __eq__(self, other):
            compared.append(other)
            return self is other

    work.put(1)
    work.next()
    for number in range(2, 100):
        assert work.lanes.put(Compared(None, number, 0, ENVELOPE, (number, 0)))[0]
    assert len(work.drop(lambda job: job.number % 2)) == 49
    assert compared == []


@of(1)
def test_after_a_close_nothing_is_begun_and_nothing_taken(work):
    work.put(1, 2, 3)
    work.next()
    assert [each.number for each in work.lanes.close()] == [2, 3]
    assert work.lanes.close() == []
    assert work.lanes.put(job(4)) == (False, [])
    work.let_go(1)
    assert work.lanes.join(Deadline(CEILING))
    assert work.begun == [1]


@of(1)
def test_a_join_waits_for_what_runs_and_no_longer_than_its_deadline(work):
    work.put(1)
    work.next()
    work.lanes.close()
    assert work.lanes.join(Deadline(0.0)) is False
    work.let_go(1)
    assert work.lanes.join(Deadline(CEILING)) is True


@of(2)
def test_where_the_system_starts_no_second_thread_the_first_does_all(work, monkeypatch):
    work.put(1)
    work.next()

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.threading.Thread, "start", start)
    work.put(2)
    work.let_go(1)
    assert work.next() == 2
    assert work.threads == {"ipevents-answers-x-1"}


@of(1)
def test_where_the_system_starts_no_thread_at_all_the_job_is_refused(work, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    first = job(1)
    with monkeypatch.context() as patched:
        patched.setattr(module.threading.Thread, "start", start)
        assert work.lanes.put(first) == (True, [first])
    assert work.lanes.waiting() == 0
    work.put(2)
    assert work.next() == 2
    assert work.begun == [2]


@of(1)
def test_where_no_thread_can_be_started_all_that_came_meanwhile_is_refused(work, monkeypatch):
    """What came while the thread was to be started waits for it, and nothing else would ever do it."""
    first, second = job(1), job(2)
    meanwhile = []

    def start(thread):
        if not meanwhile:
            meanwhile.append(None)
            assert work.lanes.put(second) == (True, [])
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(module.threading.Thread, "start", start)
        assert work.lanes.put(first) == (True, [first, second])
    assert work.lanes.waiting() == 0


@of(2)
def test_what_was_dropped_leaves_a_thread_that_waits_for_the_next(work):
    """A thread that is woken for a job that was dropped finds none, and goes on waiting."""
    work.put(1)
    work.next()
    work.let_go(1)
    work.wait_idle()
    with work.lock:
        work.put(2)
        assert [each.number for each in work.lanes.drop(lambda job: True)] == [2]
    work.put(3)
    assert work.next() == 3
    assert work.begun == [1, 3]


@of(3)
def test_a_close_ends_idle_threads_as_well(work):
    work.put(1, 2)
    assert {work.next(), work.next()} == {1, 2}
    work.let_go(1)
    work.wait_idle()
    assert work.lanes.close() == []
    work.let_go(1)
    assert work.lanes.join(Deadline(CEILING))
