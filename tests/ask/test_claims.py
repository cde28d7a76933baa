"""Who answers a request: each has one that does, in whatever order the threads of a node come to it."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest
from places import CEILING

from ipevents._ask import claims as module
from ipevents._ask.claims import Claims
from ipevents._ask.job import Job
from ipevents._core.messages import REQUEST_ANY, Envelope

ENVELOPE = Envelope(REQUEST_ANY, ("1",), "x", lambda *reply: None)
NUMBERS = (1, 2, 3)


def job(number, link="parent"):
    return Job(link, number, 0, ENVELOPE, (number, 0))


class Lock:
    """The state lock, which says when a thread has to wait for it."""

    def __init__(self):
        self._lock = threading.RLock()
        self.halts = threading.Event()

    def __enter__(self):
        if not self._lock.acquire(blocking=False):
            self.halts.set()
            assert self._lock.acquire(timeout=CEILING)

    def __exit__(self, *exc):
        self._lock.release()


@pytest.fixture
def lock():
    return Lock()


@pytest.fixture
def claims(lock):
    return Claims(SimpleNamespace(lock=lock))


def at_operation(count, call, other, lock):
    """Call one thing, and after so many operations of it another one, in a second thread.

    The first goes on when the other one is over, or waits for the lock. Returns whether there was such an
    operation, and what both have returned.
    """
    left, results = [count], []

    def run():
        try:
            results.append(other())
        finally:
            lock.halts.set()

    thread = threading.Thread(target=run)

    def trace(frame, event, argument):
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left[0] -= 1
            if not left[0]:
                lock.halts.clear()
                thread.start()
                assert lock.halts.wait(CEILING)
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        first = call()
    finally:
        sys.settrace(outer)
    if left[0] > 0:
        return False, first, None
    thread.join(CEILING)
    return True, first, results[0]


def test_what_waits_is_claimed_once(claims):
    first, second = job(1), job(2)
    claims.wait([first, second])
    assert (claims.claim(first), claims.claim(first)) == (True, False)
    assert (claims.take("parent", 2), claims.take("parent", 2)) == (second, None)


def test_a_number_is_one_of_its_link(claims):
    own, other = job(1, None), job(1)
    claims.wait([own, other])
    assert claims.take("elsewhere", 1) is None
    assert (claims.take(None, 1), claims.take("parent", 1)) == (own, other)


def test_what_waits_is_given_back_and_what_has_begun_is_not(claims):
    jobs = [job(number) for number in NUMBERS]
    claims.wait(jobs)
    assert claims.have_come("parent", NUMBERS) == set()
    assert claims.claim(jobs[0])
    assert claims.take_back("parent", NUMBERS) == [2, 3]
    assert [claims.claim(each) for each in jobs] == [False] * 3


def test_what_is_taken_back_before_it_comes_does_not_begin(claims):
    assert claims.take_back("parent", (2, 4)) == [2, 4]
    assert [claims.comes("parent", number) for number in (1, 2, 3, 4, 5)] == [False, True, False, True, False]
    assert not claims.comes("parent", 2)  # it was said


def test_what_has_come_is_not_given_back(claims):
    assert not claims.comes("parent", 2)
    assert claims.take_back("parent", (1, 2, 3)) == [3]


def test_what_is_taken_back_is_so_at_its_link_alone(claims):
    assert claims.take_back("parent", (1,)) == [1]
    assert not claims.comes("elsewhere", 1)
    assert claims.have_come("elsewhere", (1,)) == set()
    assert claims.comes("parent", 1)


def test_with_a_link_its_numbers_are_forgotten(claims):
    claims.take_back("parent", (1, 5))
    claims.comes("parent", 3)
    claims.forget("parent")
    assert not claims.comes("parent", 1)
    assert claims.take_back("parent", (2,)) == [2]
    assert not claims.comes("parent", 5)


def test_no_more_that_has_not_come_is_remembered_than_that(claims, monkeypatch):
    monkeypatch.setattr(module, "MAX_TAKEN", 2)
    claims.wait([job(9)])
    assert claims.take_back("parent", (1, 2, 3, 9)) == [1, 2, 9]  # what waits needs no place
    assert [claims.comes("parent", number) for number in NUMBERS] == [True, True, False]


class Meeting:
    """What the reader and another thread do with three requests, of which two are taken back."""

    def __init__(self, lock):
        self._lock = lock
        self.claims = Claims(SimpleNamespace(lock=lock))
        self.jobs = [job(number) for number in NUMBERS]

    def wait(self):
        self.claims.wait(self.jobs)
        return self.claims.have_come("parent", NUMBERS)

    def begin(self):
        return [number for number in NUMBERS if not self.claims.comes("parent", number)]

    def take_back(self):
        with self._lock:
            return self.claims.take_back("parent", (2, 3))


def meetings(lock, first, second):
    """One after each operation of the first call, with what both calls have returned."""
    for count in range(1, 10_000):
        meeting = Meeting(lock)
        calls = getattr(meeting, first), getattr(meeting, second)
        is_one, *results = at_operation(count, *calls, lock)
        if not is_one:
            assert count > 30  # operations of the interpreter: it was met in its midst
            return
        yield meeting, dict(zip((first, second), results, strict=True))


ORDERS = pytest.mark.parametrize("reader_is_first", [True, False])


@ORDERS
def test_what_waits_is_given_back_at_whatever_moment_it_comes(lock, reader_is_first):
    """There was a moment when it had come and did not wait yet, and so stayed where it was."""
    calls = ("wait", "take_back") if reader_is_first else ("take_back", "wait")
    for meeting, results in meetings(lock, *calls):
        assert results["take_back"] == [2, 3]
        assert results["wait"] <= {2, 3}
        assert [meeting.claims.claim(each) for each in meeting.jobs] == [True, False, False]
        assert meeting.claims._taken == {}


@ORDERS
def test_what_is_answered_in_turn_is_begun_or_given_back_at_whatever_moment(lock, reader_is_first):
    calls = ("begin", "take_back") if reader_is_first else ("take_back", "begin")
    outcomes = set()
    for meeting, results in meetings(lock, *calls):
        assert sorted([*results["begin"], *results["take_back"]]) == [1, 2, 3]
        assert meeting.claims._taken == {}
        outcomes.add(tuple(results["take_back"]))
    assert len(outcomes) > 1  # some before, some after
