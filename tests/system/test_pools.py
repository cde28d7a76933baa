"""Pools with real processes: jobs, maps, the standard library around them, and how they end.

What becomes of jobs whose worker dies is in test_pool_crashes.py.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import itertools
import os
import signal
import threading
from concurrent.futures import as_completed, wait

import numpy
import pytest
from lines import CEILING, started
from pooled import (
    Counter,
    add,
    hold,
    hold_first,
    note,
    odd,
    same,
    square,
    take,
    unsendable,
    until_cancelled,
)
from scripts import running, wait_until

from ipevents import (
    AnswererLost,
    Closed,
    NoAnswerer,
    RemoteError,
    RequestTimeout,
    Unpicklable,
    UnreadablePayload,
    WouldDeadlock,
)

WORKERS = 2
SIZES = pytest.mark.parametrize("chunksize", [1, 7, None])
ORDERS = pytest.mark.parametrize("ordered", [True, False])


@pytest.fixture
def pool(top):
    with top.pool(WORKERS) as pool:
        yield pool


@pytest.fixture
def held(top, line):
    """A pool of one worker, whose jobs can use the line."""
    with top.pool(1, initializer=take, initargs=(line.there,)) as pool:
        yield pool


def open_requests(top):
    return top.stats()["requests"]["open"]


# Values


def test_a_job_has_the_value_of_its_function(pool):
    assert pool.submit(square, 3).result(CEILING) == 9
    assert pool.submit(same).result(CEILING) is None
    assert pool.submit(add, 1, 2, extra=4).result(CEILING) == 7
    assert pool.submit(same, what={"a": (1, [2.5, b"x"])}).result(CEILING) == {"a": (1, [2.5, b"x"])}


def test_a_function_may_have_keyword_arguments_of_all_names(pool):
    def names(**kwargs):
        return sorted(kwargs)

    answer = pool.submit(names, fn=1, self=2, event=3, timeout=4, retry=5, key=6, message=7)
    assert answer.result(CEILING) == ["event", "fn", "key", "message", "retry", "self", "timeout"]


def test_arrays_go_to_a_worker_and_back(pool):
    array = numpy.arange(1_250_000)
    assert array.nbytes == 10_000_000
    assert numpy.array_equal(pool.submit(same, array).result(CEILING), array)
    (found,) = pool.map(same, [array], timeout=CEILING)
    assert numpy.array_equal(found, array)


def test_what_can_be_called_can_be_a_job(pool):
    assert pool.submit(lambda number: number + 1, 1).result(CEILING) == 2
    assert pool.submit(functools.partial(add, 1, extra=2), 3).result(CEILING) == 6
    assert pool.submit(Counter(10).count, 1).result(CEILING) == 11
    assert pool.submit(len, "four").result(CEILING) == 4
    assert pool.submit("a-b".split, "-").result(CEILING) == ["a", "b"]
    assert pool.submit(Counter, 7).result(CEILING).start == 7


def test_a_function_that_is_defined_here_refers_to_others_that_are(pool):
    def inner(number):
        return 2 * number

    def outer(number):
        return inner(number) + 1

    assert pool.submit(outer, 5).result(CEILING) == 11
    assert list(pool.map(outer, range(3), timeout=CEILING)) == [1, 3, 5]


def test_what_a_closure_refers_to_is_never_stale(pool):
    state = {"number": 0}

    def read():
        return dict(state)

    for number in range(20):
        state["number"] = number
        assert pool.submit(read).result(CEILING) == {"number": number}
    counter = Counter(0)
    for number in range(20):
        counter.start = number
        assert list(pool.map(counter.count, [1, 2], timeout=CEILING)) == [number + 1, number + 2]


def test_more_functions_than_a_worker_keeps_are_sent_again(pool):
    def make(number):
        return lambda: number

    functions = [make(number) for number in range(300)]
    for _ in range(2):
        answers = [pool.submit(function) for function in functions]
        assert [answer.result(CEILING) for answer in answers] == list(range(300))


def test_a_job_says_which_worker_has_done_it(top):
    with top.pool(1, name="work") as pool:
        answer = pool.submit(os.getpid)
        pid = answer.result(CEILING)
        assert (answer.pid.partition(".")[0], answer.name, answer.attempts) == (str(pid), "work-1", 1)
        assert pool.pids == [pid]
    with top.pool(1) as pool:
        answer = pool.submit(same)
        answer.result(CEILING)
        assert answer.name == "pool-1"


def test_the_workers_that_can_take_jobs_are_known_by_their_pids(pool):
    wait_until(lambda: len(pool.pids) == WORKERS)
    pids = set(pool.pids)
    assert {answer.result(CEILING) for answer in [pool.submit(os.getpid) for _ in range(50)]} <= pids
    assert os.getpid() not in pids
    pool.shutdown()
    assert pool.pids == []


# Errors


def test_what_a_job_raises_has_a_cause_that_says_where(pool):
    answer = pool.submit(odd, 2)
    with pytest.raises(LookupError) as caught:
        answer.result(CEILING)
    assert caught.value.args == (2,)
    cause = caught.value.__cause__
    assert type(cause) is RemoteError
    assert (cause.typeName, cause.pid) == ("LookupError", answer.pid)
    assert "in odd" in cause.traceback
    assert pool.submit(square, 2).result(CEILING) == 4


def test_what_cannot_be_pickled_is_told_at_the_call(top, pool):
    lock = threading.Lock()
    with pytest.raises(Unpicklable, match="lock"):
        pool.submit(same, lock)
    with pytest.raises(Unpicklable, match="lock"):
        pool.submit(same, what=lock)
    with pytest.raises(Unpicklable, match="lock"):
        pool.submit(lambda: lock)
    with pytest.raises(Unpicklable, match="lock"):
        pool.map(same, [lock])
    for what in (3, "same", None):
        with pytest.raises(TypeError, match="cannot be called"):
            pool.submit(what)
        with pytest.raises(TypeError, match="cannot be called"):
            pool.map(what, [])
    assert open_requests(top) == 0
    assert pool.submit(square, 2).result(CEILING) == 4


def test_an_item_of_a_map_that_cannot_be_pickled_comes_after_the_results_before_it(pool):
    found = pool.map(same, [*range(100), threading.Lock(), 1], chunksize=1, timeout=CEILING)
    assert list(itertools.islice(found, 100)) == list(range(100))
    with pytest.raises(Unpicklable):
        next(found)
    assert list(found) == []
    assert pool.submit(square, 2).result(CEILING) == 4


def test_a_result_that_cannot_be_pickled_is_an_error_and_the_pool_goes_on(pool):
    exc = pool.submit(unsendable, 3).exception(CEILING)
    assert type(exc) is Unpicklable
    assert "lock" in str(exc)
    assert pool.submit(unsendable, 2).result(CEILING) == 2


@SIZES
def test_a_result_of_a_map_that_cannot_be_pickled_is_the_error_of_that_item_alone(pool, chunksize):
    found = pool.map(unsendable, range(20), chunksize=chunksize, timeout=CEILING)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Unpicklable, match="lock"):
        next(found)
    assert list(found) == list(range(4, 20))


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_what_a_worker_cannot_read_is_an_error_of_that_job(pool):
    with pytest.raises(UnreadablePayload, match="no number"):
        pool.submit(same, Unreadable()).result(CEILING)
    with pytest.raises(UnreadablePayload, match="no number"):
        pool.submit(functools.partial(same, Unreadable())).result(CEILING)
    assert pool.submit(square, 2).result(CEILING) == 4


def test_a_result_that_cannot_be_read_here_is_an_error_of_that_job(pool):
    with pytest.raises(UnreadablePayload, match="no number"):
        pool.submit(Unreadable).result(CEILING)
    assert pool.submit(square, 2).result(CEILING) == 4


# Maps


@ORDERS
@SIZES
def test_a_map_has_a_result_for_each_item(pool, chunksize, ordered):
    found = list(pool.map(square, range(200), chunksize=chunksize, ordered=ordered, timeout=CEILING))
    expected = [number * number for number in range(200)]
    assert (found if ordered else sorted(found)) == expected


@SIZES
def test_a_map_takes_an_argument_of_each_input_until_the_shortest_ends(pool, chunksize):
    found = pool.map(add, range(100), [10] * 50, itertools.count(), chunksize=chunksize, timeout=CEILING)
    assert list(found) == [2 * number + 10 for number in range(50)]


@ORDERS
@SIZES
def test_an_empty_input_has_no_results(top, pool, chunksize, ordered):
    assert list(pool.map(square, [], chunksize=chunksize, ordered=ordered)) == []
    assert list(pool.map(square, iter(()), [1], chunksize=chunksize, ordered=ordered)) == []
    assert list(pool.map(square)) == []
    assert open_requests(top) == 0


def test_without_order_results_come_as_they_are_there(top, line):
    with top.pool(WORKERS, initializer=take, initargs=(line.there,)) as pool:
        found = pool.map(hold_first, range(10), chunksize=1, ordered=False, timeout=CEILING)
        assert sorted(next(found) for _ in range(9)) == list(range(1, 10))
        assert line.next() == 0
        line.tell("go on")
        assert list(found) == [0]


def test_in_order_what_comes_early_waits_for_the_first(top, line):
    with top.pool(WORKERS, initializer=take, initargs=(line.there,)) as pool:
        found = pool.map(hold_first, range(50), chunksize=1, timeout=CEILING)
        assert line.next() == 0
        line.tell("go on")
        assert list(found) == list(range(50))


@SIZES
@pytest.mark.parametrize("how", ["break", "close", "drop"])
def test_a_map_that_is_left_gives_up_the_rest(top, pool, chunksize, how):
    taken = []
    found = pool.map(square, itertools.count(), chunksize=chunksize, timeout=CEILING)
    for value in found:
        taken.append(value)
        if len(taken) == 100:
            break
    if how == "close":
        found.close()
        assert list(found) == []
    del found
    assert taken == [number * number for number in range(100)]
    wait_until(lambda: open_requests(top) == 0)
    assert pool.submit(square, 2).result(CEILING) == 4


@SIZES
def test_what_an_input_raises_comes_after_the_results_before_it(top, pool, chunksize):
    def numbers():
        yield from range(20)
        raise KeyError("mine")

    found = pool.map(square, numbers(), chunksize=chunksize, timeout=CEILING)
    taken = []
    with pytest.raises(KeyError, match="mine"):
        taken.extend(found)
    assert taken == [number * number for number in range(20)]
    assert list(found) == []
    assert open_requests(top) == 0


def test_an_input_that_raises_at_once_raises_in_the_call(top, pool):
    def numbers():
        raise KeyError("mine")
        yield

    with pytest.raises(KeyError, match="mine"):
        pool.map(square, numbers())
    assert open_requests(top) == 0


@ORDERS
@SIZES
@pytest.mark.parametrize("most", [1, 5])
def test_the_input_is_read_only_as_far_as_buffersize_allows(pool, most, chunksize, ordered):
    read = 0

    def numbers():
        nonlocal read
        for number in range(60):
            read += 1
            yield number

    found = pool.map(
        square, numbers(), buffersize=most, chunksize=chunksize, ordered=ordered, timeout=CEILING
    )
    assert read <= most
    taken = 0
    for _ in found:
        taken += 1
        assert read <= taken + most
    assert taken == 60


def test_a_map_that_nobody_iterates_over_reads_little(pool):
    numbers = itertools.count()
    found = pool.map(square, numbers, chunksize=1)
    assert next(numbers) <= 4 * WORKERS
    found.close()


@ORDERS
@SIZES
def test_an_error_stands_in_the_place_of_its_item_and_the_iterator_goes_on(pool, chunksize, ordered):
    found = pool.map(odd, range(40), chunksize=chunksize, ordered=ordered, timeout=CEILING)
    outcomes = list(all_outcomes(found))
    expected = [number if number % 2 else str(number) for number in range(40)]
    assert (outcomes if ordered else sorted(outcomes, key=int)) == expected


def all_outcomes(found):
    """The results of a map, and in place of errors of ``odd`` their texts."""
    while True:
        raised = None
        try:
            yield next(found)
        except StopIteration:
            return
        except LookupError as exc:
            raised = exc
        if raised is not None:
            assert type(raised.__cause__) is RemoteError
            assert "in odd" in raised.__cause__.traceback
            yield str(raised)


def test_a_map_ends_with_its_time_and_the_pool_goes_on(top, held, line):
    first = held.submit(until_cancelled)
    assert line.next() == "runs"
    found = held.map(note, range(3), chunksize=1, timeout=0.05)
    with pytest.raises(RequestTimeout):
        next(found)
    assert list(found) == []
    assert not first.cancel()
    assert first.result(CEILING) == "seen"
    assert held.submit(note, "next").result(CEILING) == "next"
    assert line.next() == "next"  # what had not begun never did
    assert open_requests(top) == 0


def test_a_map_in_a_listener_does_not_wait(top, held, line):
    caught = []

    def listener(message):
        found = held.map(hold, [1], timeout=CEILING)
        try:
            next(found)
        except WouldDeadlock as exc:
            caught.append(exc)

    top.on("go", listener)
    top.emit("go")
    assert [type(exc) for exc in caught] == [WouldDeadlock]
    first = held.submit(note, "next")
    if line.next() == 1:  # it had begun
        line.tell("go on")
        assert line.next() == "next"
    assert first.result(CEILING) == "next"


WRONG_MAPS = {
    "retry=-1": (ValueError, "retry"),
    "retry=1.5": (TypeError, "retry"),
    "retry=True": (TypeError, "retry"),
    "retry=None": (TypeError, "retry"),
    "chunksize=0": (ValueError, "chunksize is at least 1, not 0"),
    "chunksize='1'": (TypeError, "chunksize is a number of items"),
    "chunksize=True": (TypeError, "chunksize is a number of items"),
    "buffersize=0": (ValueError, "buffersize is at least 1, not 0"),
    "buffersize=2.0": (TypeError, "buffersize is a number of items"),
    "timeout='1'": (TypeError, "timeout"),
    "timeout=-1": (ValueError, "timeout"),
}


@pytest.mark.parametrize("how", WRONG_MAPS)
def test_a_map_refuses_wrong_arguments(top, pool, how):
    kind, text = WRONG_MAPS[how]
    with pytest.raises(kind, match=text):
        eval(f"pool.map(abs, [1], {how})", {"pool": pool})
    assert open_requests(top) == 0


def test_a_map_takes_no_input_that_cannot_be_iterated_over(pool):
    with pytest.raises(TypeError, match="iter"):
        pool.map(square, 3)


def test_several_threads_use_one_pool(pool):
    def use(number):
        return list(pool.map(add, range(50), [number] * 50, timeout=CEILING))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(use, range(4)))
    assert found == [[number + each for each in range(50)] for number in range(4)]


# The standard library


def test_the_functions_of_concurrent_futures_take_the_jobs_of_a_pool(held, line):
    assert isinstance(held, concurrent.futures.Executor)
    first = held.submit(hold, "first")
    others = [held.submit(square, number) for number in range(20)]
    assert line.next() == "first"
    done, pending = wait([first, *others], 0)
    assert (done, pending) == (set(), {first, *others})
    line.tell("go on")
    assert sorted(each.result() for each in as_completed(others, CEILING)) == [
        number * number for number in range(20)
    ]
    assert wait([first, *others], CEILING).not_done == set()
    assert first.result() == "go on"


def test_a_coroutine_waits_for_jobs_in_all_ways(pool):
    async def main():
        loop = asyncio.get_running_loop()
        assert await pool.submit(square, 2) == 4
        assert await asyncio.wrap_future(pool.submit(square, 3)) == 9
        assert await loop.run_in_executor(pool, square, 4) == 16
        several = [loop.run_in_executor(pool, square, number) for number in range(50)]
        assert await asyncio.gather(*several) == [number * number for number in range(50)]
        with pytest.raises(LookupError):
            await loop.run_in_executor(pool, odd, 2)

    asyncio.run(main())


def test_a_job_that_waits_can_be_cancelled_and_never_begins(top, held, line):
    first = held.submit(until_cancelled)
    assert line.next() == "runs"
    others = [held.submit(note, number) for number in range(10)]
    assert [answer.cancel() for answer in others[:9]] == [True] * 9
    assert all(answer.cancelled() for answer in others[:9])
    assert not first.cancel()
    assert first.result(CEILING) == "seen"
    assert others[9].result(CEILING) == 9
    assert line.next() == 9
    assert line.is_empty()
    assert not first.cancel()
    assert open_requests(top) == 0


def test_a_job_that_runs_sees_that_nobody_wants_it_any_more(held, line):
    answer = held.submit(until_cancelled)
    assert line.next() == "runs"
    assert not answer.cancel()
    assert answer.result(CEILING) == "seen"


# Workers


def test_an_initializer_sets_a_global_of_the_script_that_jobs_see():
    with running("""
        number = 0

        def initialize(first, second):
            global number
            number = first + second

        def read():
            return number

        with ipem.pool(2, initializer=initialize, initargs=(3, 4)) as pool:
            say("main", pool.submit(read).result(), *pool.map(lambda more: number + more, range(3)))
        say("here", number)
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.err) == (0, "")
        # The function that is sent by value brings the script's own global; one of the worker's counts more.
        assert ended.lines == ["main 7 7 8 9", "here 0"]


def test_a_worker_is_replaced_after_its_last_job(top):
    with top.pool(1, maxJobs=3) as pool:
        pids = [pool.submit(os.getpid).result(CEILING) for _ in range(10)]
        counted = collections.Counter(pids)
        assert set(counted.values()) <= {1, 3}
        assert len(counted) == 4
    with top.pool(WORKERS, maxJobs=3) as pool:
        answers = [pool.submit(os.getpid) for _ in range(20)]
        counted = collections.Counter(answer.result(CEILING) for answer in answers)
        assert max(counted.values()) <= 3
        found = list(pool.map(square, range(20), chunksize=1, timeout=CEILING))
        assert found == [number * number for number in range(20)]


def test_a_worker_that_takes_too_much_memory_is_replaced(top):
    with top.pool(1, maxMemory=1) as pool:
        pids = [pool.submit(os.getpid).result(CEILING) for _ in range(3)]
        assert len(set(pids)) == 3
    with top.pool(1, maxMemory=1 << 40) as pool:
        pids = [pool.submit(os.getpid).result(CEILING) for _ in range(3)]
        assert len(set(pids)) == 1


def test_nobody_is_told_of_the_workers(top, line):
    heard = []
    for event in ("online", "offline", "error"):
        top.on(event, lambda message, *args, event=event: heard.append(event))
    with top.pool(WORKERS) as pool:
        assert pool.submit(square, 2).result(CEILING) == 4
        wait_until(lambda: len(pool.pids) == WORKERS)
        assert top.childsOnline == 0
    child = started(top, serve)
    assert heard == ["online"]
    with top.expecting("offline", CEILING):
        child.stop()
    assert heard == ["online", "offline"]


def test_a_listener_that_is_told_by_a_job_hears_it(top, pool):
    def job():
        from ipevents import ipem

        ipem.sendToParents("told", 3)

    with top.expecting("told", CEILING) as told:
        pool.submit(job).result(CEILING)
    assert told.message.args == (3,)


def test_two_pools_at_once(top, pool):
    with top.pool(1) as other:
        answers = [each.submit(os.getpid) for each in (pool, other) for _ in range(20)]
        pids = [answer.result(CEILING) for answer in answers]
        assert set(pids[:20]) & set(pids[20:]) == set()
        assert list(zip(pool.map(square, range(9)), other.map(square, range(9)), strict=True)) == [
            (number * number,) * 2 for number in range(9)
        ]
    assert pool.submit(square, 2).result(CEILING) == 4


def serve():
    """A child that answers "echo", and "work" by its pid and what it is asked."""
    import os

    from ipevents import ipem

    @ipem.answer("echo")
    def echo(message, what=None):
        return what

    @ipem.answer("work")
    def work(message, what=None):
        return os.getpid(), what


def test_requests_and_events_go_on_while_a_pool_is_busy(top, held, line):
    child = started(top, serve)
    first = held.submit(hold, "first")
    rest = [held.submit(square, number) for number in range(100)]
    assert line.next() == "first"
    assert child.request("echo", 1) == 1
    assert top.requestAny("echo", 2) == 2
    heard = threading.Event()
    top.on("event", lambda message: heard.set())
    assert top.emit("event")
    assert heard.wait(CEILING)
    line.tell("go on")
    assert first.result(CEILING) == "go on"
    assert [answer.result(CEILING) for answer in rest] == [number * number for number in range(100)]


WRONG_POOLS = {
    "0": (ValueError, "workers is from 1 to 1000, not 0"),
    "-1": (ValueError, "workers is from 1 to 1000, not -1"),
    "1001": (ValueError, "workers is from 1 to 1000, not 1001"),
    "True": (TypeError, "workers is a number, an int, not True"),
    "2.0": (TypeError, "workers is a number, an int, not 2.0"),
    "'2'": (TypeError, "workers is a number, an int, not '2'"),
    "1, maxJobs=0": (ValueError, "maxJobs is at least 1, not 0"),
    "1, maxJobs='x'": (TypeError, "maxJobs is a number"),
    "1, maxMemory=-5": (ValueError, "maxMemory is at least 1, not -5"),
    "1, maxMemory=1e9": (TypeError, "maxMemory is a number"),
    "1, initializer=3": (TypeError, "initializer is a function, not 3"),
    "1, initializer=print, initargs=3": (TypeError, "3"),
    "1, initializer=print, initargs='abc'": (TypeError, "'abc'"),
    "1, name=3": (TypeError, "name"),
    "1, initializer=print, initargs=[__import__('threading').Lock()]": (Unpicklable, "lock"),
    "1, 2": (TypeError, "positional"),
}


@pytest.mark.parametrize("how", WRONG_POOLS)
def test_a_pool_refuses_wrong_arguments(top, how):
    kind, text = WRONG_POOLS[how]
    with pytest.raises(kind, match=text):
        eval(f"top.pool({how})", {"top": top})


# Ends


def test_a_pool_that_is_shut_down_takes_nothing(top):
    pool = top.pool(1)
    answers = [pool.submit(square, number) for number in range(10)]
    pool.shutdown()
    assert [answer.result(0) for answer in answers] == [number * number for number in range(10)]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(square, 1)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.map(square, [1])
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    assert "shut down" in repr(pool)


def test_a_shutdown_without_a_wait_returns_while_jobs_run(top, line):
    pool = top.pool(1, initializer=take, initargs=(line.there,))
    answers = [pool.submit(hold, number) for number in range(3)]
    assert line.next() == 0
    pool.shutdown(wait=False)
    assert not any(answer.done() for answer in answers)
    for number in range(3):
        line.tell(number)
    assert [answer.result(CEILING) for answer in answers] == [0, 1, 2]
    pool.shutdown()


def test_a_shutdown_can_cancel_what_has_not_begun(top, line):
    pool = top.pool(1, initializer=take, initargs=(line.there,))
    first = pool.submit(until_cancelled)
    others = [pool.submit(note, number) for number in range(10)]
    assert line.next() == "runs"
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(answer.cancelled() for answer in others)
    assert first.result(CEILING) == "seen"
    pool.shutdown()


def test_a_shutdown_in_a_listener_does_not_wait(top, line):
    pool = top.pool(1, initializer=take, initargs=(line.there,))
    answer = pool.submit(hold)
    assert line.next() is None
    top.on("go", lambda message: pool.shutdown())
    top.emit("go")
    assert not answer.done()
    line.tell("go on")
    assert answer.result(CEILING) == "go on"
    pool.shutdown()


def test_a_shutdown_in_a_callback_of_a_job_does_not_wait(top):
    pool = top.pool(1)
    called = threading.Event()

    def end(answer):
        pool.shutdown()
        called.set()

    pool.submit(same).add_done_callback(end)
    assert called.wait(CEILING)
    pool.shutdown()


@pytest.mark.parametrize("rounds", [10])
def test_a_map_that_is_left_holds_no_shutdown_up(top, rounds):
    for _ in range(rounds):
        with top.pool(1) as pool:
            for value in pool.map(square, itertools.count(), timeout=CEILING):
                if value > 100:
                    break
    found = pool = None
    with top.pool(1) as pool:
        found = pool.map(square, itertools.count(), timeout=CEILING)
        assert next(found) == 0
        pool.shutdown(wait=False)
        del found


def test_a_job_that_is_cancelled_in_a_shutdown_does_not_hold_it_up(top, line):
    pool = top.pool(1, initializer=take, initargs=(line.there,))
    first, second = pool.submit(until_cancelled), pool.submit(note)
    assert line.next() == "runs"
    pool.shutdown(wait=False)
    assert not first.cancel()
    assert first.result(CEILING) == "seen"
    second.cancel()
    pool.shutdown()


def test_a_map_that_has_read_all_has_all_results_after_a_shutdown(top):
    with top.pool(WORKERS) as pool:
        found = pool.map(square, range(3), chunksize=1)
    assert list(found) == [0, 1, 4]


def test_a_map_that_has_not_read_all_says_so_after_a_shutdown(top):
    with top.pool(WORKERS) as pool:
        found = pool.map(square, itertools.count(), chunksize=1, timeout=CEILING)
        assert next(found) == 0
    taken = []
    with pytest.raises(RuntimeError, match="shut down"):
        taken.extend(found)
    assert taken == [number * number for number in range(1, len(taken) + 1)]
    assert list(found) == []


def test_a_stop_ends_all_jobs_and_the_pool_with_them(top, held, line):
    answers = [held.submit(hold, number) for number in range(100)]
    assert line.next() == 0
    found = held.map(hold, itertools.count(), chunksize=1, timeout=CEILING)
    top.on("stopping", lambda message: line.tell("go on"))
    top.stop()
    assert {type(answer.exception(0)) for answer in answers[1:]} == {Closed}
    with pytest.raises(Closed):
        next(found)
    check_closed(held)
    top.start()
    check_closed(held)
    with top.pool(1) as pool:
        assert pool.submit(square, 3).result(CEILING) == 9


def check_closed(pool):
    """It has ended with the life that it was made in."""
    with pytest.raises(Closed):
        pool.submit(square, 1)
    with pytest.raises(Closed):
        pool.map(square, [1])
    assert pool.pids == []


@pytest.mark.parametrize("how", ["stop", "shutdown"])
def test_a_pool_may_end_before_its_workers_have_started(top, how):
    pool = top.pool(WORKERS)
    if how == "stop":
        top.stop()
    pool.shutdown()
    assert pool.pids == []


# Scripts


def test_a_script_ends_with_its_pool_without_start():
    with running("""
        with ipem.pool(2) as pool:
            say(*pool.map(lambda number: number + 1, range(3)))
        say("end", ipem.stats()["requests"]["open"])
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.err) == (0, "")
        assert ended.lines == ["1 2 3", "end 0"]


def test_a_script_that_leaves_a_pool_ends_when_its_jobs_are_done():
    with running("""
        def job(number):
            time.sleep(0.05)
            say("done", number)

        pool = ipem.pool(2)
        for number in range(6):
            pool.submit(job, number)
        say("end")
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.err) == (0, "")
        assert sorted(ended.lines) == sorted(["end", *(f"done {number}" for number in range(6))])


def test_a_script_whose_pool_is_dropped_ends():
    with running("""
        pool = ipem.pool(2)
        say(pool.submit(pow, 2, 3).result())
        del pool
        say("end")
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.err) == (0, "")
        assert ended.lines == ["8", "end"]


def test_a_script_that_fails_leaves_no_worker():
    with running("""
        pool = ipem.pool(2)
        say(pool.submit(pow, 2, 3).result())
        raise SystemExit(3)
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.err, ended.lines) == (3, "", ["8"])


def test_a_pool_that_is_dropped_ends_its_workers(top):
    pool = top.pool(1)
    pid = pool.submit(os.getpid).result(CEILING)
    del pool
    wait_until(lambda: not _is_there(pid))


def _is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_is_done_although_nobody_has_its_pool_any_more(top):
    assert top.pool(1).submit(square, 3).result(CEILING) == 9
    assert list(top.pool(1).map(square, range(9), timeout=CEILING)) == [
        number * number for number in range(9)
    ]


# Pools in children


def test_a_child_that_leaves_a_pool_ends_when_its_jobs_are_done(top):
    def child():
        from ipevents import ipem

        pool = ipem.pool(2)
        pool.submit(ipem_told, 1)
        return sum(pool.map(square, range(4)))

    def ipem_told(number):
        from ipevents import ipem

        ipem.sendToGrandMaster("told", number)

    with top.expecting("told", CEILING) as told:
        handle = top.worker(child, restart=False)
    assert told.message.args == (1,)
    assert handle.result(CEILING) == 14
    assert handle.join(CEILING)


@pytest.mark.parametrize("way", ["with", "left open"])
def test_a_job_of_a_pool_may_have_a_pool(pool, way):
    def job(number):
        from ipevents import ipem

        inner = ipem.pool(1)
        value = sum(inner.map(square, range(number)))
        if way == "with":
            inner.shutdown()
        else:
            ipem.kept = inner
        return value

    assert pool.submit(job, 4).result(CEILING) == 14
    assert pool.submit(job, 3).result(CEILING) == 5


# mapAny


def pids_of(top, count):
    """Start children that answer "work"; returns them, when all of them are known to."""
    children = [started(top, serve) for _ in range(count)]
    wait_until(lambda: top.answerersBelow("work") == count)
    return children


@ORDERS
def test_requests_for_each_item_go_to_all_that_answer(top, ordered):
    children = pids_of(top, 2)
    found = list(top.mapAny("work", range(200), ordered=ordered, timeout=CEILING))
    values = [what for _, what in found]
    assert (values if ordered else sorted(values)) == list(range(200))
    assert {str(pid) for pid, _ in found} == {child.pid.partition(".")[0] for child in children}


@ORDERS
def test_items_that_nobody_answers_each_have_an_error(top, ordered):
    found = top.mapAny("work", range(5), ordered=ordered, timeout=CEILING)
    for _ in range(5):
        with pytest.raises(NoAnswerer):
            next(found)
    assert list(found) == []


@ORDERS
def test_with_a_retry_another_process_answers_what_a_killed_one_has_begun(top, line, ordered):
    def child(line):
        import os

        from ipevents import ipem

        @ipem.answer("work")
        def work(message, what):
            if what == 3:
                line.send(os.getpid())
                line.recv()
            return what

        ipem.sendToGrandMaster("here")

    top.on("error", lambda message, error: None)
    for _ in range(2):
        with top.expecting("here", CEILING):
            top.worker(child, (line.there,), restart=False)
    wait_until(lambda: top.answerersBelow("work") == 2)
    found = top.mapAny("work", range(20), ordered=ordered, retry=1, timeout=CEILING)
    first = line.next()
    os.kill(first, signal.SIGKILL)
    second = line.next()
    assert second != first
    line.tell("go on")
    assert sorted(found) == list(range(20))


def test_an_endless_input_of_requests_is_read_no_further_than_asked_for(top):
    pids_of(top, 1)
    numbers = itertools.count()
    found = top.mapAny("work", numbers, buffersize=3, timeout=CEILING)
    assert next(numbers) <= 3
    assert next(found)[1] == 0
    found.close()
    wait_until(lambda: open_requests(top) == 0)


WRONG_REQUESTS = {
    "'', []": (ValueError, "event"),
    "'stopping', []": (ValueError, "stopping"),
    "'x', [], retry=-1": (ValueError, "retry"),
    "'x', [], buffersize=0": (ValueError, "buffersize is at least 1"),
    "'x', [], timeout='1'": (TypeError, "timeout"),
    "'x', 3": (TypeError, "iter"),
}


@pytest.mark.parametrize("how", WRONG_REQUESTS)
def test_wrong_arguments_of_requests_for_each_item(top, how):
    kind, text = WRONG_REQUESTS[how]
    with pytest.raises(kind, match=text):
        eval(f"top.mapAny({how})", {"top": top})


# What a fresh reader found


def test_a_job_that_raises_stop_iteration_does_not_end_the_loop_in_silence(pool):
    def empty(number):
        return next(iter(()))

    with pytest.raises(RuntimeError, match="has raised StopIteration"):
        list(pool.map(empty, [1], chunksize=1))


def test_what_runs_when_its_map_is_left_is_done_before_the_pool_ends(top, line):
    with top.pool(1, initializer=take, initargs=(line.there,)) as pool:
        found = pool.map(hold_first, [0, 1], chunksize=1)
        assert line.next() == 0
        found.close()
        stopping = threading.Thread(target=pool.shutdown)
        stopping.start()
        line.tell("done")  # otherwise nobody would read it
    stopping.join(CEILING)
    assert not stopping.is_alive()


def test_a_shutdown_cancels_what_a_map_has_not_begun(top, line):
    with top.pool(1, initializer=take, initargs=(line.there,)) as pool:
        found = pool.map(hold_first, [0, 1], chunksize=1)
        assert line.next() == 0
        pool.shutdown(wait=False, cancel_futures=True)
        line.tell("done")
        assert next(found) == 0
        with pytest.raises(concurrent.futures.CancelledError):
            next(found)


def test_a_worker_that_was_replaced_does_what_the_one_before_had_not_begun(top, line):
    with top.pool(2, initializer=take, initargs=(line.there,)) as pool:
        busy = pool.submit(hold, "busy")
        assert line.next() == "busy"
        lost = pool.submit(os._exit, 3)
        others = [pool.submit(same, number) for number in range(4)]
        assert isinstance(lost.exception(CEILING), AnswererLost)
        assert [answer.result(CEILING) for answer in others] == [0, 1, 2, 3]
        assert not busy.done()
        line.tell("done")


def test_in_a_forked_process_a_shutdown_returns_at_once():
    with running("""
        with ipem.pool(1) as pool:
            pid = os.fork()
            if pid == 0:
                pool.shutdown()
                os._exit(0)
            say(os.waitpid(pid, 0)[1])
    """) as script:
        ended = script.ended()
        assert (ended.status, ended.lines) == (0, ["0"])
