"""A pool as the process sees it that has made it: its jobs, its functions, and how it ends or fails.

What starts workers is played by the test, and so are the workers.
"""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from places import CEILING, in_thread
from staffs import EVENT, Hand, Staff, make_pool

from ipevents._ask.bench import MANY
from ipevents._ask.pool import FAILED_STARTS, _length
from ipevents._core.state import Stage
from ipevents._exceptions import Closed, GaveUp, PoolFailed, StartFailed, TargetFailed
from ipevents._platform.threads import library_threads


@pytest.fixture
def place(places):
    return places("top")


@pytest.fixture
def staff():
    return Staff()


@pytest.fixture
def pool(place, staff):
    return make_pool(place, staff)


@pytest.fixture
def hand(place, raw):
    """Makes workers of the pool."""
    return lambda pid="raw": Hand(place, raw(place, pid))


# Workers


def test_it_starts_its_workers_under_numbered_names(pool, staff):
    assert staff.started == ["pool-1", "pool-2"]
    assert staff.pool() is pool
    assert staff.stopped == []


def test_where_one_cannot_be_started_those_before_it_are_ended(place):
    staff = Staff(at_most=2)
    with pytest.raises(OSError, match="no process left"):
        make_pool(place, staff, 3)
    assert staff.stopped == ["pool-1", "pool-2"]
    assert EVENT not in place.asks.sharing.crews


def test_the_pids_are_of_those_that_answer(pool, hand):
    assert pool.pids == []
    hand("12.1")
    hand("34")
    assert sorted(pool.pids) == [12, 34]


# Jobs


def test_a_job_waits_until_a_worker_is_there(pool, hand):
    answer = pool.submit(abs, -1)
    assert not answer.done()
    worker = hand()
    _, number, payload = worker.until_job()
    assert payload[3:] == (-1,)
    worker.answers(number, 1)
    assert answer.result(CEILING) == 1
    assert (answer.pid, answer.attempts) == ("raw", 1)


def test_each_worker_gets_a_function_once_before_the_first_job_that_calls_it(pool, hand):
    worker = hand("1")
    assert len(worker.does(1, pool.submit(abs, -1))) == 1
    assert worker.does(2, pool.submit(abs, -2)) == []
    assert len(worker.does(3, pool.submit(len, "abc"))) == 1
    assert worker.does(4, pool.submit(abs, -4)) == []


def test_a_function_whose_state_has_changed_is_another_one(pool, hand):
    state = []
    worker = hand()

    def read():
        return state

    keys = [worker.does(0, pool.submit(read))]
    keys.append(worker.does(0, pool.submit(read)))
    state.append(1)
    keys.append(worker.does(0, pool.submit(read)))
    assert [len(each) for each in keys] == [1, 0, 1]
    assert keys[0] != keys[2]


@pytest.mark.parametrize("size", [1, 3])
def test_a_job_of_a_map_has_one_item_or_several(pool, hand, size):
    found = pool.map(abs, [-1, -2], chunksize=size, timeout=CEILING)
    (key,), number, payload = hand().until_job()
    if size == 1:
        assert payload == (number, 0, key, -1)
    else:
        assert payload[:3] == (number, 0, MANY + key) or type(payload) is bytes
    found.close()


def test_what_is_wrong_is_told_at_the_call_and_nothing_is_open(place, pool):
    for call in (
        lambda: pool.submit("abs"),
        lambda: pool.submit(abs, threading.Lock()),
        lambda: pool.map("abs", [1]),
        lambda: pool.map(abs, [1], chunksize=0),
        lambda: pool.map(abs, [1], timeout="soon"),
        lambda: pool.map(abs, [1], retry=-1),
        lambda: pool.map(abs, 1),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert list(place.asks.requests.each()) == []
    pool.shutdown()


# Shutdown


def test_workers_are_ended_when_the_last_job_is_done(pool, staff, hand):
    worker = hand()
    answer = pool.submit(abs, -1)
    pool.shutdown(wait=False)
    assert staff.stopped == []
    worker.does(1, answer)
    assert staff.stopped == staff.started
    pool.shutdown()
    assert len(staff.stopped) == 2


def test_workers_are_ended_when_the_last_job_of_a_map_is_done(pool, staff, hand):
    worker = hand()
    found = pool.map(abs, [-1], chunksize=1, timeout=CEILING)
    pool.shutdown(wait=False)
    assert staff.stopped == []
    _, number, _ = worker.until_job()
    worker.answers(number, 1)
    assert list(found) == [1]
    assert staff.stopped == staff.started


def test_a_map_that_is_dropped_after_the_shutdown_lets_the_workers_end(place, pool, staff):
    found = pool.map(abs, [-1], chunksize=1)
    pool.shutdown(wait=False)
    del found
    gc.collect()
    noticed(place)
    assert staff.stopped == staff.started


def noticed(place):
    """Wait until the notices thread has done what it was given."""
    done = threading.Event()
    place.node.notices.put(done.set)
    assert done.wait(CEILING)


def test_a_shutdown_waits_for_the_end_of_all_workers(pool, staff):
    staff.stop_ends = False
    ended = in_thread(pool.shutdown)
    for worker in pool._workers:
        worker.ended.set()
    assert ended() is None


@pytest.mark.parametrize("where", ["listener", "thread of the library"])
def test_a_shutdown_does_not_wait_where_that_would_hold_up_the_end(place, pool, staff, where):
    staff.stop_ends = False
    if where == "listener":
        place.on("go", lambda message: pool.shutdown())
        place.node.events.deliver("go")
    else:
        library_threads.add(threading.get_ident())
        try:
            pool.shutdown()
        finally:
            library_threads.discard(threading.get_ident())
    assert staff.stopped == staff.started


def test_a_shutdown_can_cancel_what_has_not_begun(pool, staff):
    answers = [pool.submit(abs, number) for number in range(5)]
    pool.shutdown(cancel_futures=True)
    assert all(answer.cancelled() for answer in answers)
    assert staff.stopped == staff.started


def test_a_job_that_is_cancelled_after_the_shutdown_lets_the_workers_end(pool, staff):
    answers = [pool.submit(abs, number) for number in range(3)]
    pool.shutdown(wait=False)
    for answer in answers:
        assert staff.stopped == []
        assert answer.cancel()
    assert staff.stopped == staff.started


def test_after_it_nothing_is_taken(pool):
    assert "of 2 workers, open" in repr(pool)
    with pool:
        pass
    assert "shut down" in repr(pool)
    for call in (lambda: pool.submit(abs, 1), lambda: pool.map(abs, [1])):
        with pytest.raises(RuntimeError, match="shut down"):
            call()


def test_a_pool_that_nobody_has_any_more_ends_its_workers_in_the_notices_thread(place):
    staff = Staff()
    gone = weakref.ref(make_pool(place, staff))
    gc.collect()
    assert gone() is None
    noticed(place)
    assert staff.stopped == staff.started


def test_a_pool_with_an_open_job_is_kept_by_it(place, hand):
    staff = Staff()
    answer = make_pool(place, staff).submit(abs, -1)
    gc.collect()
    assert staff.stopped == []
    hand().does(1, answer)


# Failures


FAILURES = {
    "no process": (lambda: StartFailed("1", None, why="no process"), False),
    "the initializer has raised": (lambda: TargetFailed("1", 1, "traceback"), False),
    "it died in the initializer": (lambda: StartFailed("1", -9), True),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_pool_whose_workers_do_not_start_fails_with_all_its_jobs(place, staff, how):
    make, has_initializer = FAILURES[how]
    pool = make_pool(place, staff, has_initializer=has_initializer)
    answers = [pool.submit(abs, number) for number in range(3)]
    found = pool.map(abs, range(9), timeout=CEILING)
    for _ in range(FAILED_STARTS - 1):
        pool._on_failure(make())
    assert not any(answer.done() for answer in answers)
    last = make()
    pool._on_failure(last)
    errors = [answer.exception(CEILING) for answer in answers]
    assert [type(exc) for exc in errors] == [PoolFailed] * 3
    assert {exc.__cause__ for exc in errors} == {last}
    assert len(set(map(id, errors))) == 3
    with pytest.raises(PoolFailed):
        next(found)
    for call in (lambda: pool.submit(abs, 1), lambda: pool.map(abs, [1])):
        with pytest.raises(PoolFailed) as caught:
            call()
        assert caught.value.__cause__ is last
    assert staff.stopped == staff.started
    assert "failed" in repr(pool)


def test_a_worker_that_comes_online_ends_the_row_of_failures(pool, staff):
    for _ in range(5):
        for _ in range(FAILED_STARTS - 1):
            pool._on_failure(TargetFailed("1", 1, "traceback"))
        pool._on_online(pool._workers[0])
    assert "open" in repr(pool)
    assert staff.reliable == ["pool-1"] * 5


def test_deaths_that_say_nothing_of_the_next_start_do_not_count(pool):
    for _ in range(2 * FAILED_STARTS):
        pool._on_failure(StartFailed("1", -9))  # no initializer
        pool._on_failure(GaveUp("it dies all the time"))
    assert "open" in repr(pool)


def test_the_end_of_all_workers_is_a_failure_and_that_of_some_is_none(place, pool):
    answer = pool.submit(abs, 1)
    pool._on_end()
    assert not answer.done()
    pool._on_end()
    assert type(answer.exception(CEILING)) is PoolFailed
    assert EVENT not in place.asks.sharing.crews


def test_after_a_shutdown_the_end_of_all_workers_is_as_it_should_be(place, pool):
    pool.shutdown()
    pool._on_end()
    pool._on_end()
    assert "shut down" in repr(pool)
    assert EVENT not in place.asks.sharing.crews


def test_at_a_stop_the_end_of_all_workers_is_no_failure(place, pool, monkeypatch):
    monkeypatch.setattr(place.node, "stage", Stage.STOPPING)
    for _ in range(FAILED_STARTS):
        pool._on_failure(TargetFailed("1", 1, "traceback"))
    pool._on_end()
    pool._on_end()
    assert "failed" not in repr(pool)
    for call in (lambda: pool.submit(abs, 1), lambda: pool.map(abs, [1])):
        with pytest.raises(Closed, match="the pool has ended when"):
            call()


# Lengths


def test_the_length_of_several_inputs_is_that_of_the_shortest_if_all_have_one():
    assert _length(([1, 2, 3], "ab")) == 2
    assert _length(([1, 2], iter("a"))) is None
    assert _length(()) is None
    assert _length((range(5),)) == 5
