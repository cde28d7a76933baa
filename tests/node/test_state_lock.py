"""What waits for the release of the state lock. From signal handlers and in a whole node: test_node.py."""

from __future__ import annotations

import threading

import pytest

from ipevents._exceptions import Closed
from ipevents._node.state_lock import StateLock


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
