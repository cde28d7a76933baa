"""Every way between the states of an emitter."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.state import STAGES, TRANSITIONS, Event, LifeState, Stage, State

RESTS = {State.NEW, State.CLOSED, State.FORKED}  # nothing runs, nothing has to follow


def after(*events: Event) -> LifeState:
    life = LifeState()
    for event in events:
        life.change(event)
    return life


def test_every_state_has_a_row_and_a_stage():
    assert set(TRANSITIONS) == set(STAGES) == set(State)


def test_every_state_and_every_event_can_occur():
    reached = {State.NEW}
    for _ in State:
        reached |= {following for state in reached for following in TRANSITIONS[state].values()}
    assert reached == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_an_event_leads_where_its_row_says_or_is_refused_and_changes_nothing(state, event):
    life = LifeState()
    life.state = state
    following = TRANSITIONS[state].get(event)
    assert life.allows(event) is (following is not None)
    if following is None:
        with pytest.raises(RuntimeError, match=rf"{event.name} .* {state.name}"):
            life.change(event)
        assert life.state is state
    else:
        assert life.change(event) is following
        assert life.state is following
        assert life.stage is STAGES[following]


def test_an_emitter_is_started_stopped_and_started_again():
    once = (Event.START, Event.OPENED, Event.JOINED, Event.STOP, Event.GOODBYE, Event.ENDED)
    assert after(*once).state is State.CLOSED
    assert after(*once, *once).state is State.CLOSED


def test_a_worker_may_come_before_the_start():
    assert after(Event.OPENED, Event.START, Event.JOINED).state is State.STARTED
    assert after(Event.START, Event.OPENED, Event.JOINED).state is State.STARTED


def test_a_stop_ends_a_start_wherever_it_meets_it():
    assert after(Event.START, Event.STOP).state is State.CLOSED
    assert after(Event.START, Event.OPENED, Event.STOP).state is State.STOPPING
    assert after(Event.OPENED, Event.START, Event.STOP).state is State.STOPPING
    assert not after(Event.START, Event.STOP).allows(Event.OPENED)
    assert not after(Event.START, Event.OPENED, Event.STOP).allows(Event.JOINED)


def test_a_start_that_fails_leaves_what_was_there_before_it():
    assert after(Event.START, Event.FAILED).state is State.NEW
    assert after(Event.OPENED, Event.START, Event.FAILED).state is State.OPEN


def test_a_stop_is_gone_through_to_its_end():
    for state in (State.STOPPING, State.ENDING):
        assert len(set(TRANSITIONS[state]) - {Event.FORK}) == 1


def test_nothing_runs_means_that_a_fork_has_nothing_of_its_parents():
    for state in State:
        following = TRANSITIONS[state][Event.FORK]
        assert (following is State.FORKED) is (state is not State.NEW)


def test_from_every_state_a_way_leads_to_rest():
    for state in State:
        reached, found = {state}, False
        for _ in State:
            found = found or bool(reached & RESTS)
            ways = (TRANSITIONS[one].items() for one in reached)
            reached |= {to for row in ways for event, to in row if event is not Event.FORK}
        assert found, state


@given(st.lists(st.sampled_from(sorted(Event, key=lambda event: event.name)), max_size=60))
def test_whatever_comes_an_emitter_is_open_only_between_opened_and_stop(events):
    life = LifeState()
    is_open = False
    for event in events:
        if not life.allows(event):
            continue
        life.change(event)
        if event is Event.OPENED:
            is_open = True
        elif event in (Event.STOP, Event.FORK):
            is_open = False
        assert (life.stage is Stage.OPEN) is is_open
