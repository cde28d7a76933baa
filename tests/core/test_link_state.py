from __future__ import annotations

import pytest

from ipevents._core.link_state import (
    CONNECTIONS,
    RIGHTS,
    SUMMONS,
    Connection,
    LinkEvent,
    LinkState,
    Right,
    Summons,
)


@pytest.mark.parametrize(
    ("table", "states"), [(CONNECTIONS, Connection), (RIGHTS, Right), (SUMMONS, Summons)], ids=lambda x: None
)
def test_each_state_has_a_row_and_none_but_the_last_is_a_dead_end(table, states):
    assert set(table) == set(states)
    assert all(table.values())


@pytest.mark.parametrize(("table", "first"), [(RIGHTS, Right.FREE), (SUMMONS, Summons.ASLEEP)])
def test_each_state_is_reached_and_leads_back_to_the_first(table, first):
    def reached(start):
        found, new = set(), {start}
        while new:
            found |= new
            new = {following for state in new for following in table[state]} - found
        return found

    assert all(reached(state) == set(table) for state in table)
    assert reached(first) == set(table)


def test_a_link_is_open_while_it_has_a_connection_and_may_get_another_one_after_it():
    state = LinkState()
    assert state.change(LinkEvent.ATTACHED) is Connection.OPEN
    assert state.change(LinkEvent.READ) is Connection.NONE
    assert state.change(LinkEvent.ATTACHED) is Connection.OPEN


def test_what_is_there_at_the_end_is_read_first():
    state = LinkState()
    state.change(LinkEvent.ATTACHED)
    assert state.change(LinkEvent.END) is Connection.ENDING
    assert state.change(LinkEvent.END) is Connection.ENDING
    assert state.change(LinkEvent.READ) is Connection.ENDED


@pytest.mark.parametrize(
    ("connection", "event"),
    [(one, event) for one in Connection for event in CONNECTIONS[one]],
    ids=lambda value: value.name,
)
def test_a_link_has_ended_if_no_row_leads_to_another_connection(connection, event):
    state = LinkState()
    state.connection = connection
    reached, new = set(), {state.change(event)}
    while new:
        reached |= new
        new = {following for one in new for following in CONNECTIONS[one].values()} - reached
    assert state.ended is (Connection.NONE not in reached)


@pytest.mark.parametrize(
    ("connection", "event"),
    [(one, event) for one in Connection for event in LinkEvent if event not in CONNECTIONS[one]],
    ids=lambda value: value.name,
)
def test_what_is_in_no_row_is_refused_and_changes_nothing(connection, event):
    state = LinkState()
    state.connection = connection
    assert not state.allows(event)
    with pytest.raises(RuntimeError, match=f"{event.name} cannot happen to a link that is {connection.name}"):
        state.change(event)
    assert (state.connection, state.ended) == (connection, False)
