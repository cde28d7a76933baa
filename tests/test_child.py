"""The handle of a child: what it says of the process, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ipevents import Emitter, ForkedError, OptionsError, WouldDeadlock
from ipevents._child import Child
from ipevents._core.outbox import Outbox
from ipevents._core.restarts import NoRestart, Restart, RestartPolicy
from ipevents._core.state import Event
from ipevents._processes import programs
from ipevents._processes.child_state import ChildState

CEILING = 30.0  # reached only in a deadlock


class Process:
    """A process as far as a Child looks at it."""

    process = object()  # multiprocessing's


class Children:
    """What a supervisor is asked to do with its children."""

    def __init__(self):
        self.asked = []

    def stop_child(self, state, seconds):
        self.asked.append(("stop", state.pid, seconds))
        state.ended.set()

    def kill_child(self, state):
        self.asked.append(("kill", state.pid))


@pytest.fixture
def emitter():
    emitter = Emitter().options(useSocket=False, stopTimeout=7000)
    yield emitter
    emitter.stop()


@pytest.fixture
def state():
    state = ChildState(
        "resize", programs.function(print, (), {}), True, RestartPolicy(True, 1.0, None), False, "spawn"
    )
    state.pid = "4711"
    state.link = SimpleNamespace(sent=0, outbox=Outbox())
    return state


@pytest.fixture
def child(emitter, state):
    return Child(emitter._life, state)


@pytest.fixture
def children(emitter):
    """Those of a supervisor that notes what it is asked for."""
    asked = Children()
    emitter._life.supervisor = SimpleNamespace(children=asked)
    yield asked
    emitter._life.supervisor = None


def starts(state, number=1):
    for _ in range(number):
        state.starts_now(0.0)
        state.started(Process())
        if number > 1:
            state.exited(3, 0.0)
            state.goes_next(Restart(0.0), 0.0)


def test_what_it_says_of_a_process_that_runs(child, state):
    starts(state)
    assert (child.pid, child.name, child.alive, child.restarts) == ("4711", "resize", True, 0)
    assert (child.process, child.exitcode) == (Process.process, None)
    assert repr(child) == "<Child resize 4711 alive, 0 restarts>"


def test_what_it_says_between_two_processes(child, state):
    starts(state, 3)
    assert (child.alive, child.process, child.exitcode, child.restarts) == (False, None, 3, 2)
    assert repr(child) == "<Child resize 4711 restarting, 2 restarts>"


def test_what_it_says_after_the_final_end(child, state):
    starts(state)
    state.exited(-9, 0.0)
    state.goes_next(NoRestart(), 0.0)
    state.ends()
    state.ended.set()
    assert (child.alive, child.process, child.exitcode) == (False, None, -9)
    assert repr(child) == "<Child resize 4711 ended, 0 restarts>"


def test_a_child_that_was_never_started_has_no_restarts(child):
    assert (child.restarts, child.alive, child.process, child.exitcode) == (0, False, None, None)


@pytest.mark.parametrize(("policy", "is_explicit"), [(True, True), (False, False), ("on-failure", False)])
def test_the_policy_of_restarts_may_be_set(child, state, policy, is_explicit):
    child.restart = policy
    assert child.restart == state.policy.policy == policy
    assert state.explicit is is_explicit


@pytest.mark.parametrize("policy", ["always", None, 3])
def test_what_is_no_policy_is_refused_and_changes_nothing(child, state, policy):
    with pytest.raises(OptionsError, match="restart"):
        child.restart = policy
    assert (state.policy.policy, state.explicit) == (True, False)


@pytest.mark.parametrize(("timeout", "allowed"), [(None, 7.0), (0.5, 0.5), (0, 0.0)])
def test_a_stop_has_the_time_of_the_options_unless_it_is_given_one(child, children, timeout, allowed):
    child.stop(timeout)
    assert children.asked == [("stop", "4711", allowed)]


@pytest.mark.parametrize("end", [lambda child: child.stop(), lambda child: child.kill()])
def test_an_end_of_what_has_ended_asks_for_nothing(child, state, children, end):
    state.ended.set()
    end(child)
    assert children.asked == []


@pytest.mark.parametrize("end", [lambda child: child.stop(), lambda child: child.kill()])
def test_an_end_where_nothing_runs_does_nothing(child, state, end):
    end(child)
    assert not state.ended.is_set()


def test_a_kill_does_not_wait(child, state, children):
    child.kill()
    assert children.asked == [("kill", "4711")]
    assert not state.ended.is_set()


@pytest.mark.parametrize("timeout", ["3", -1, float("nan"), True])
def test_a_timeout_that_is_none_is_refused_and_asks_for_nothing(child, children, timeout):
    for call in (child.stop, child.join):
        with pytest.raises((TypeError, ValueError), match="a timeout is a number of seconds"):
            call(timeout)
    assert children.asked == []


def test_a_wait_for_the_end_is_as_long_as_it_is_given(child, state):
    assert child.join(0.0) is False
    state.ended.set()
    assert child.join() is True


def test_a_listener_may_not_wait_for_an_end_but_may_ask_for_it(emitter, child, state):
    told = []

    def listener(message):
        try:
            child.join(CEILING)
        except WouldDeadlock as exc:
            told.append(str(exc))
        state.ended.set()
        told.append(child.join(CEILING))

    emitter.on("x", listener).emit("x")
    assert told[0].startswith("join() waits")
    assert told[1:] == [True]


def test_in_a_fork_of_the_process_it_belongs_to_another(emitter, child, state, children):
    emitter._node.change(Event.START)
    emitter._node.change(Event.FORK)
    for call in (child.stop, child.kill, child.join):
        with pytest.raises(ForkedError):
            call()
    assert children.asked == []
    state.ended.set()
    assert child.join()


def test_join_knows_the_end_of_a_child_also_after_the_stop():
    def work():
        pass

    emitter = Emitter().options(useSocket=False, restart=False).start()
    child = emitter.worker(work)
    emitter.stop()
    assert child.join()
    assert child.join(0.0)
