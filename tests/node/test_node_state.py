from __future__ import annotations

import pytest

from ipevents._core.state import Event, Stage
from ipevents._exceptions import Closed, ForkedError, NotStarted
from ipevents._node.node_state import NodeState


class Listening:
    """A dispatcher of which only one thing is asked."""

    runs = False

    def runs_here(self):
        return self.runs


@pytest.fixture
def state():
    made = NodeState("4718", print, print)
    made.dispatcher = Listening()
    made.errors = []
    made.error = made.errors.append
    return made


def test_the_stage_follows_the_state(state):
    assert state.stage is Stage.NEW
    state.change(Event.START)
    assert state.stage is state.state.stage
    with pytest.raises(RuntimeError):
        state.change(Event.START)


@pytest.mark.parametrize(
    ("stage", "error", "text"),
    [
        (Stage.NEW, NotStarted, "has not started"),
        (Stage.STOPPING, Closed, "is stopping"),
        (Stage.CLOSED, Closed, "was stopped"),
        (Stage.FORKED, ForkedError, "was forked from 4718"),
    ],
)
def test_a_stage_that_allows_no_send_says_why(state, stage, error, text):
    state.stage = stage
    assert not state.may_send()
    with pytest.raises(error, match=text):
        state.check_stage(listener=False)


def test_in_a_stop_listeners_may_send_and_so_may_a_target_that_is_unwound(state):
    state.stage = Stage.STOPPING
    state.check_stage(listener=True)
    state.dispatcher.runs = True
    assert state.may_send()
    state.dispatcher.runs = False
    assert not state.may_send()
    state.sends_while_stopping = True
    assert state.may_send()
    state.check_stage(listener=False)


def test_what_a_deferred_call_raises_of_ours_is_reported(state):
    def fails():
        raise Closed("it was")

    with state.lock:
        assert state.inside()
        state.defer(fails)
        assert state.errors == []
    assert not state.inside()
    assert [str(error) for error in state.errors] == ["it was"]


def test_in_a_forked_process_the_lock_is_another_one(state):
    state.lock.acquire()
    before = state.lock
    state.defer(print)
    state.forget_lock_owner()
    assert state.lock is not before
    assert not state.inside()
    assert state.deferred is state.lock.deferred
    assert not state.deferred
