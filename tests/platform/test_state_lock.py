"""What waits for the release of the state lock. What that may be is in the tests of the parts of a node."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from ipevents._exceptions import Closed
from ipevents._platform.state_lock import StateLock


@pytest.fixture
def errors():
    return []


@pytest.fixture
def lock(errors):
    return StateLock(errors.append)


def test_what_is_deferred_runs_in_order_when_the_lock_is_left_altogether(lock):
    ran = []
    with lock:
        with lock:
            lock.defer(ran.append, 1)
            lock.defer(ran.append, 2)
        assert lock.inside()
        assert ran == []
    assert ran == [1, 2]
    assert lock.deferred == {}
    assert not lock.inside()


def test_what_is_deferred_meanwhile_runs_after_it_and_not_within(lock):
    ran = []

    def first():
        lock.defer(ran.append, "second")
        lock.run_deferred()
        ran.append("first")

    with lock:
        lock.defer(first)
    assert ran == ["first", "second"]


def test_each_thread_runs_its_own(lock):
    ran = []
    with lock:
        lock.defer(ran.append, "mine")
        thread = threading.Thread(target=lock.run_deferred)
        thread.start()
        thread.join()
        assert ran == []
    assert ran == ["mine"]


def test_what_a_deferred_call_raises_of_the_library_is_reported_and_the_rest_runs(lock, errors):
    ran = []
    error = Closed("stopped")

    def fails():
        raise error

    with lock:
        lock.defer(fails)
        lock.defer(ran.append, "next")
    assert (errors, ran) == ([error], ["next"])


def test_after_a_fork_nothing_waits_for_the_lock_of_before(lock):
    ran = []
    with lock:
        lock.defer(ran.append, 1)
        lock.forget()
    assert ran == []


def test_a_signal_handler_may_run_what_is_queued_before_who_was_about_to(lock):
    done = []

    class Interrupted(deque):
        """A signal comes whenever it is asked whether something is in it: its handler runs all of it."""

        def __bool__(self):
            there = len(self) > 0
            while len(self):
                self.popleft()[0]()
            return there

    lock.deferred[threading.get_ident()] = Interrupted([(lambda: done.append("once"), ())])
    lock.run_deferred()
    assert (done, lock.deferred) == (["once"], {})
