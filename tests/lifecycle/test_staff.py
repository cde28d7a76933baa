"""The workers of a pool as children: how they are made and ended, and what the pool is told of them."""

from __future__ import annotations

import gc
import weakref

import pytest

from ipevents._core.restarts import GiveUp, Restart
from ipevents._exceptions import Closed, StartFailed
from ipevents._lifecycle.staff import PoolStaff
from ipevents._options import Options
from ipevents._payload.inheritance import Inheritance
from ipevents._platform.state_lock import StateLock
from ipevents._processes import programs


class Life:
    """Of an emitter what starts and ends children; and its node, supervisor and children."""

    def __init__(self):
        self.node = self.supervisor = self.children = self
        self.lock = StateLock(lambda exc: None)
        self.options = Options()
        self.added = []
        self.stopped = []  # children, each with its seconds
        self.refuses = None

    def add_child(self, child):
        if self.refuses is not None:
            raise self.refuses
        self.added.append(child)

    def stop_child(self, child, seconds):
        self.stopped.append((child, seconds))


class Pool:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def _on_online(self, worker):
        self.told.append(worker)

    def _on_failure(self, error):
        self.told.append(error)

    def _on_end(self):
        self.told.append("end")


@pytest.fixture
def life():
    return Life()


@pytest.fixture
def inherited():
    return Inheritance()


@pytest.fixture
def program(inherited):
    return programs.function(print, (), None, inherited)


@pytest.fixture
def staff(life, program, inherited):
    return PoolStaff(life, program, inherited)


def test_a_worker_is_a_quiet_child_that_is_restarted_after_each_end(life, staff):
    pool = Pool()
    child = staff.start("pool-1", weakref.ref(pool))
    assert life.added == [child]
    assert (child.name, child.is_quiet, child.is_worker) == ("pool-1", True, True)
    policy = child.policy
    assert (policy.policy, policy.delay, policy.max_restarts) == (True, 0.0, None)
    for code in (0, 1, -9):  # the end of its function is no reason to stay away either
        policy.started(0.0)
        decision = policy.exited(
            5.0, code, finished=code == 0, wanted=False, refused=False, explicit=child.explicit
        )
        assert type(decision) is Restart
        assert type(decision) is not GiveUp


def test_the_options_for_children_hold_for_workers(life, program, inherited):
    life.options = Options().merged({"startMethod": "spawn", "stopGrace": 1500}, {}, started=False)
    child = PoolStaff(life, program, inherited).start("w", weakref.ref(Pool()))
    assert (child.start_method, child.stop_grace) == ("spawn", 1.5)


def test_a_worker_that_cannot_be_started_is_told_at_the_call(life, staff):
    life.refuses = Closed("it was stopped")
    with pytest.raises(Closed):
        staff.start("w", weakref.ref(Pool()))


def test_the_pool_is_told_of_its_workers(staff):
    pool = Pool()
    child = staff.start("w", weakref.ref(pool))
    error = StartFailed("1", None)
    child.on_online()
    child.on_failure(error)
    child.on_end()
    assert pool.told == [child, error, "end"]


def test_a_pool_that_is_gone_is_told_nothing_and_is_not_kept_by_its_workers(staff):
    pool = Pool()
    gone = weakref.ref(pool)
    child = staff.start("w", gone)
    told = pool.told
    del pool
    gc.collect()
    assert gone() is None
    child.on_online()
    child.on_failure(StartFailed("1", None))
    child.on_end()
    assert told == []


def test_a_worker_is_asked_to_end_within_the_time_of_a_stop(life, staff):
    child = staff.start("w", weakref.ref(Pool()))
    staff.stop(child)
    assert life.stopped == [(child, life.options.stop_timeout)]
    assert staff.ended(child) is child.ended
    child.ended.set()
    staff.stop(child)
    assert len(life.stopped) == 1


def test_without_a_supervisor_there_is_nothing_to_end(life, staff):
    child = staff.start("w", weakref.ref(Pool()))
    life.supervisor = None
    staff.stop(child)
    assert life.stopped == []


def test_a_worker_that_has_come_online_is_restarted_at_once_whatever_was_before(staff):
    child = staff.start("w", weakref.ref(Pool()))
    for _ in range(9):
        child.policy.started(0.0)
        decision = child.policy.exited(0.1, 1, finished=False, wanted=False, refused=False, explicit=True)
    assert decision.after > 0.0
    staff.is_reliable(child)
    child.policy.started(0.0)
    decision = child.policy.exited(0.1, 1, finished=False, wanted=False, refused=False, explicit=True)
    assert decision.after == 0.0
