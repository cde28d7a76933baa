"""A pool whose workers die before a job, at each stage of one, and after it: no other job is lost by that.

loky has such a matrix for its executor, which breaks in all of these cases. Here the pool works on in all of
them but one: an initializer that no worker survives.
"""

from __future__ import annotations

import os
import signal

import crashing
import pytest
from crashing import CODES, DONE, STAGES, Deadly, Death, handle
from lines import CEILING
from matrix import diagonal
from scripts import wait_gone, wait_until

from ipevents import AnswererLost, PoolFailed

HOWS = ["kill", "_exit", "exit"]
JOBS = range(20)
WORKERS = 2


@pytest.fixture
def top(tops):
    """The emitter whose pools are tested. That workers die is no news to it."""
    emitter = tops()
    emitter.on("error", lambda message, error: None)
    return emitter


@pytest.fixture
def pool(top):
    with top.pool(WORKERS) as pool:
        yield pool


@pytest.fixture
def deaths(tmp_path):
    """Makes a death, see crashing.py."""
    return lambda how, times=1: Death(how, tmp_path / "deaths", times, os.getpid())


def submitted(pool):
    """Give out jobs that are as good as any; returns their answers."""
    return [pool.submit(handle, number) for number in JOBS]


def results(answers):
    return [answer.result(CEILING) for answer in answers]


def check_lost(exc, death, attempts=1):
    """The error says which process has had the job, and how that ended."""
    assert type(exc) is AnswererLost, exc
    assert exc.begun is True
    assert (exc.exitcode, exc.pid, exc.attempts) == (CODES[death.how], death.pids()[-1], attempts)
    assert len(death.pids()) == attempts


def check_works(pool, death):
    """It works, and soon has as many workers as ever, none of them dead."""
    assert list(pool.map(handle, JOBS, timeout=CEILING)) == list(JOBS)
    assert results(submitted(pool)) == list(JOBS)
    dead = set(map(int, death.pids()))
    wait_until(lambda: len(pool.pids) == WORKERS and not dead & set(pool.pids))


# At each stage of a job


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_ends_its_worker_is_lost_and_no_other_one(pool, deaths, stage, how):
    death = deaths(how)
    assert results(submitted(pool)) == list(JOBS)  # so none of these is done and not yet answered
    deadly = pool.submit(handle, Deadly(stage, death))
    others = submitted(pool)
    check_lost(deadly.exception(CEILING), death)
    assert results(others) == list(JOBS)
    check_works(pool, death)


def test_a_worker_that_a_job_ends_well_is_lost_all_the_same(pool, deaths):
    death = deaths("exit well")
    deadly = pool.submit(handle, Deadly("run", death))
    others = submitted(pool)
    check_lost(deadly.exception(CEILING), death)
    assert results(others) == list(JOBS)
    check_works(pool, death)


@pytest.mark.parametrize(("stage", "how"), diagonal(STAGES, HOWS))
def test_jobs_that_end_all_workers_at_once_are_lost_and_what_has_not_begun_is_done(pool, deaths, stage, how):
    death = deaths(how, times=2 * WORKERS)
    deadly = [pool.submit(handle, Deadly(stage, death)) for _ in range(2 * WORKERS)]
    others = submitted(pool)
    lost = [answer.exception(CEILING) for answer in deadly]
    assert [(type(exc), exc.begun, exc.exitcode) for exc in lost] == [(AnswererLost, True, CODES[how])] * len(
        deadly
    )
    assert sorted(exc.pid for exc in lost) == sorted(death.pids())
    for number, answer in zip(JOBS, others, strict=True):
        exc = answer.exception(CEILING)
        if exc is None:
            assert answer.result() == number
        else:  # it was done in the last millisecond of a worker, and not answered yet
            assert (type(exc), exc.begun, exc.pid in death.pids()) == (AnswererLost, True, True)
    check_works(pool, death)


@pytest.mark.parametrize(("stage", "how", "ordered"), diagonal(STAGES, HOWS, [True, False]))
def test_a_map_without_retry_raises_the_error_of_a_job_that_ends_its_worker(
    pool, deaths, stage, how, ordered
):
    death = deaths(how)
    found = pool.map(handle, [Deadly(stage, death), *JOBS], chunksize=1, ordered=ordered, timeout=CEILING)
    before = []
    with pytest.raises(AnswererLost) as caught:
        before.extend(found)
    check_lost(caught.value, death)
    assert set(before) <= (set() if ordered else set(JOBS))
    check_works(pool, death)


@pytest.mark.parametrize(
    ("stage", "how", "ordered", "chunk"), diagonal(STAGES, HOWS, [True, False], [None, 1, 5])
)
def test_a_map_with_a_retry_has_all_results_if_the_second_worker_lives(
    pool, deaths, stage, how, ordered, chunk
):
    death = deaths(how)
    jobs = [*JOBS, Deadly(stage, death), *JOBS]
    found = list(pool.map(handle, jobs, chunksize=chunk, ordered=ordered, retry=1, timeout=CEILING))
    expected = [*JOBS, DONE, *JOBS]
    if not ordered:
        found, expected = sorted(found, key=str), sorted(expected, key=str)
    assert found == expected
    assert len(death.pids()) == 1
    check_works(pool, death)


@pytest.mark.parametrize(("stage", "how"), diagonal(STAGES, HOWS))
def test_a_job_that_ends_the_second_worker_as_well_is_lost_after_one_retry(pool, deaths, stage, how):
    death = deaths(how, times=2)
    found = pool.map(handle, [Deadly(stage, death), *JOBS], chunksize=1, retry=1, timeout=CEILING)
    with pytest.raises(AnswererLost) as caught:
        next(found)
    check_lost(caught.value, death, attempts=2)
    check_works(pool, death)


# Before any job


@pytest.mark.parametrize(("how", "way"), diagonal([*HOWS, "raise"], ["submit", "map"]))
def test_a_worker_that_dies_before_its_first_job_costs_no_job(top, deaths, how, way):
    death = deaths(how)
    with top.pool(WORKERS, initializer=crashing.initialize, initargs=(death,)) as pool:
        if way == "submit":
            assert results(submitted(pool)) == list(JOBS)
        else:
            assert list(pool.map(handle, JOBS, timeout=CEILING)) == list(JOBS)
        check_works(pool, death)


@pytest.mark.parametrize(("how", "way"), diagonal([*HOWS, "raise"], ["submit", "map"]))
def test_an_initializer_that_no_worker_survives_ends_all_jobs(top, deaths, how, way):
    death = deaths(how, times=100)
    with top.pool(1, initializer=crashing.initialize, initargs=(death,)) as pool:
        if way == "submit":
            answers = submitted(pool)
            assert {type(answer.exception(CEILING)) for answer in answers} == {PoolFailed}
        else:
            with pytest.raises(PoolFailed):
                list(pool.map(handle, JOBS, retry=1, timeout=CEILING))
        assert len(death.pids()) == 3
        with pytest.raises(PoolFailed):
            pool.submit(handle, 1).result(CEILING)
        wait_until(lambda: pool.pids == [])
    with top.pool(1) as pool:  # another one is none the worse for it
        assert pool.submit(handle, 1).result(CEILING) == 1


# After a job


@pytest.mark.parametrize("way", ["submit", "map"])
def test_a_worker_that_is_killed_after_its_job_costs_no_job(pool, way):
    """Those that follow may be given to it as long as nobody knows that it is dead: it begins none of them."""
    pid = pool.submit(os.getpid).result(CEILING)
    assert pid in pool.pids
    os.kill(pid, signal.SIGKILL)
    if way == "submit":
        assert results(submitted(pool)) == list(JOBS)
    else:
        assert list(pool.map(handle, JOBS, timeout=CEILING)) == list(JOBS)
    assert wait_gone(pid)
    assert pool.submit(handle, 1).result(CEILING) == 1


@pytest.mark.parametrize("way", ["submit", "map"])
def test_a_worker_that_leaves_after_its_job_costs_no_job(pool, deaths, tmp_path, way):
    death, fifo = deaths("_exit"), tmp_path / "fifo"
    os.mkfifo(fifo)
    pid = pool.submit(crashing.die_later, death, fifo).result(CEILING)
    fifo.open("w").close()
    assert wait_gone(pid)
    if way == "submit":
        assert results(submitted(pool)) == list(JOBS)
    else:
        assert list(pool.map(handle, JOBS, timeout=CEILING)) == list(JOBS)
    check_works(pool, death)


def test_workers_that_are_all_killed_while_they_are_idle_cost_no_job(pool):
    dead = set()
    for _ in range(3):
        assert results(submitted(pool)) == list(JOBS)
        wait_until(lambda: len(pool.pids) == WORKERS and not dead & set(pool.pids))
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
    assert results(submitted(pool)) == list(JOBS)
