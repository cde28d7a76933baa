"""What a send is refused for before anything is put, and the plan that it gets."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.decisions import Report
from ipevents._core.messages import (
    BROADCAST,
    MAX_PID,
    MAX_ROUTE,
    SEND_TO,
    TO_CHILD,
    TO_CHILDS,
    TO_PARENTS,
    is_pid,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._exceptions import (
    Closed,
    ForkedError,
    InvalidEvent,
    NotConnected,
    NotStarted,
    ReservedEvent,
    SendError,
    UnknownProcess,
)
from ipevents._node.planning import NoProcess, plan_message, refusal


@pytest.fixture
def place(places):
    return places("me")


@pytest.fixture
def link(place):
    """That to a child called "child", without a connection."""
    return place.make_child("child")


def plan(place, kind, event, route=None):
    with place.node.lock:
        return plan_message(place.node, kind, event, route)


STAGES = {
    Stage.NEW: NotStarted,
    Stage.STOPPING: Closed,
    Stage.CLOSED: Closed,
    Stage.FORKED: ForkedError,
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_allows_no_send_is_the_reason_whatever_else_is_wrong(place, stage):
    place.node.stage = stage
    with pytest.raises(STAGES[stage]):
        plan(place, SEND_TO, "", ())


def test_while_it_stops_a_listener_may_send_and_so_may_what_is_being_unwound(place):
    place.node.stage = Stage.STOPPING
    place.node.dispatcher.enter()
    assert plan(place, BROADCAST, "x").event == "x"
    place.node.dispatcher.leave()
    with pytest.raises(Closed, match="is stopping"):
        plan(place, TO_CHILDS, "x")
    place.node.sends_while_stopping = True
    assert plan(place, TO_CHILDS, "x").event == "x"


@pytest.mark.parametrize(
    ("event", "error"),
    [("", InvalidEvent), (5, InvalidEvent), ("online", ReservedEvent), ("error", ReservedEvent)],
)
def test_a_name_that_cannot_be_sent_is_refused_before_its_route_is_looked_at(place, event, error):
    with pytest.raises(error):
        plan(place, SEND_TO, event, ())


def test_a_plan_is_kept_until_the_topology_changes(place, link):
    first = plan(place, TO_CHILDS, "x")
    assert first.only is link
    assert plan(place, TO_CHILDS, "x") is first
    other = place.make_child("other")
    assert plan(place, TO_CHILDS, "x").forward == (link, other)


def test_a_route_has_at_least_one_pid(place):
    with pytest.raises(UnknownProcess, match="at least one pid"):
        plan(place, SEND_TO, "x", ())


@pytest.mark.parametrize("own", [(), ("me",)])
def test_a_route_has_at_most_so_many_pids_our_own_name_apart(place, link, own):
    longest = ("far",) * (MAX_ROUTE - 1) + ("child",)
    assert plan(place, SEND_TO, "x", (*longest, *own)).only is link
    with pytest.raises(SendError, match=f"at most {MAX_ROUTE} pids, this one has {MAX_ROUTE + 1}"):
        plan(place, SEND_TO, "x", ("far", *longest, *own))


def test_a_pid_that_no_process_can_have_is_unknown_and_shown_in_short(place, link):
    assert plan(place, SEND_TO, "x", ("p" * MAX_PID, "child")).only is link
    with pytest.raises(UnknownProcess, match=f"more than {MAX_PID} characters") as raised:
        plan(place, SEND_TO, "x", ("p" * 100_000, "child"))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(("kind", "route"), [(TO_CHILD, ("nobody",)), (SEND_TO, ("child", "nobody"))])
def test_a_next_hop_that_is_no_neighbour_is_unknown(place, link, kind, route):
    with pytest.raises(UnknownProcess, match="event 'x' was not sent: .*'nobody'"):
        plan(place, kind, "x", route)


def test_a_parent_that_is_away_is_not_connected(place):
    parent = place.make_link("top")
    with place.node.lock:
        place.node.router.set_parent(parent, "top", Up.AWAY)
    with pytest.raises(NotConnected, match="event 'x' was not sent: the server top is away"):
        plan(place, SEND_TO, "x", ("top",))
    assert plan(place, TO_PARENTS, "x").lost_up, "a fan-out is no mistake of the caller"


def test_a_send_by_a_link_goes_there_as_long_as_that_is_a_neighbour(place, link):
    assert plan(place, TO_CHILD, "x", (link,)).only is link
    with place.node.lock:
        place.node.router.remove_child(link)
    with pytest.raises(NoProcess):
        plan(place, TO_CHILD, "x", (link,))


def test_a_refusal_is_what_the_report_says():
    away, unknown = refusal("x", Report("away", connected=False)), refusal("x", Report("unknown"))
    assert (type(away), str(away)) == (NotConnected, "event 'x' was not sent: away")
    assert (type(unknown), str(unknown)) == (UnknownProcess, "event 'x' was not sent: unknown")


PIDS = st.one_of(
    st.sampled_from(["me", "child"]), st.text(max_size=MAX_PID + 2), st.text("az09.:-", max_size=MAX_PID + 2)
)
ROUTES = st.lists(PIDS, max_size=MAX_ROUTE + 2).filter(lambda route: route != ["me"])  # that is an emit


def test_every_route_has_a_plan_or_is_refused(place, link):
    @given(ROUTES)
    def check(route):
        hops = route[:-1] if route and route[-1] == "me" else route
        goes = 0 < len(hops) <= MAX_ROUTE and hops[-1] == "child" and all(map(is_pid, route))
        with nullcontext() if goes else pytest.raises(SendError):
            assert plan(place, SEND_TO, "x", tuple(route)).only is link

    check()
