"""Every way between the states of a child."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.child_states import (
    CONTACTS,
    PHASES,
    Contact,
    ContactEvent,
    Phase,
    PhaseEvent,
    next_contact,
    next_phase,
)

MACHINES = [(PHASES, Phase, PhaseEvent, next_phase), (CONTACTS, Contact, ContactEvent, next_contact)]
NAMES = ["phase", "contact"]
STEPS = [
    (table, step, state, event)
    for table, states, events, step in MACHINES
    for state, event in itertools.product(states, events)
]


@pytest.mark.parametrize(("table", "states", "events", "step"), MACHINES, ids=NAMES)
def test_every_state_has_a_row_and_every_state_and_event_occurs(table, states, events, step):
    assert set(table) == set(states)
    first = next(iter(states))
    assert {first, *(following for row in table.values() for following in row.values())} == set(states)
    assert {event for row in table.values() for event in row} == set(events)


@pytest.mark.parametrize(("table", "step", "state", "event"), STEPS)
def test_an_event_leads_where_its_row_says_or_is_refused(table, step, state, event):
    following = table[state].get(event)
    if following is None:
        with pytest.raises(RuntimeError, match=rf"{event.name} .* {state.name}"):
            step(state, event)
    else:
        assert step(state, event) is following


@pytest.mark.parametrize(("table", "last"), [(PHASES, Phase.ENDED), (CONTACTS, Contact.READ)], ids=NAMES)
def test_only_the_last_state_is_left_by_nothing_and_it_is_reached_from_everywhere(table, last):
    assert [state for state, row in table.items() if not row] == [last]
    for state in table:
        reached = {state}
        for _ in table:
            reached |= {following for one in reached for following in table[one].values()}
        assert last in reached


def test_a_child_can_end_in_every_phase():
    assert all(
        next_phase(phase, PhaseEvent.END) is Phase.ENDED for phase in Phase if phase is not Phase.ENDED
    )


@given(st.lists(st.sampled_from(list(PhaseEvent)), max_size=60))
def test_whatever_comes_a_process_runs_only_between_its_start_and_its_end(events):
    phase, runs = Phase.NEW, False
    for event in events:
        if event not in PHASES[phase]:
            continue
        phase = next_phase(phase, event)
        if event is PhaseEvent.STARTED:
            assert not runs
            runs = True
        elif event in (PhaseEvent.EXITED, PhaseEvent.END):
            runs = False
        assert (phase is Phase.RUNNING) is runs


@given(st.lists(st.sampled_from(list(ContactEvent)), max_size=60))
def test_whatever_comes_a_start_connects_once(events):
    contact, connections = Contact.AWAITED, 0
    for event in events:
        if event in CONTACTS[contact]:
            contact = next_contact(contact, event)
            connections += event is ContactEvent.CONNECTED
    assert connections <= 1
    assert (contact in (Contact.AWAITED, Contact.ADMITTED)) is (connections == 0)
