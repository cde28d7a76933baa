from __future__ import annotations

import pytest
from fabric import middle_of

from ipevents._core import topology
from ipevents._core.decisions import Plan, Report
from ipevents._core.interest import Change
from ipevents._core.messages import (
    BROADCAST,
    REQUEST,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    SEND_TO,
    TO_CHILD,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
    Header,
)
from ipevents._core.router import RULES, Router
from ipevents._core.topology import Up
from ipevents._exceptions import Forged, ProtocolError

AWAY = Report("the server parent is away", None, connected=False)


def middle(up: Up = Up.OPEN) -> Router:
    router = middle_of(Router("me"), up)
    router.peer_answers("a link", "x", 1, 1)
    router.peer_answers("deaf link", "x", 2, 2)
    return router


def from_here(kind: int, event: str = "x") -> tuple[Header, str]:
    """What the plan for messages that start here says of their records."""
    return (kind, ("me",), None), event


# Every kind at every place: what is done with it, whether the parent gets it, which children do.

TABLE = [
    # kind, came by, up, deliver, forward
    (TO_PARENTS, None, Up.OPEN, False, ("parent",)),
    (TO_PARENTS, None, Up.NONE, False, ()),
    (TO_PARENTS, "a link", Up.OPEN, True, ("parent",)),
    (TO_PARENTS, "a link", Up.NONE, True, ()),
    (TO_PARENTS, "parent link", Up.OPEN, False, ()),
    (TO_CHILDS, None, Up.OPEN, False, ("a", "b")),
    (TO_CHILDS, None, Up.NONE, False, ("a", "b")),
    (TO_CHILDS, "a link", Up.OPEN, False, ()),
    (TO_CHILDS, "a link", Up.NONE, False, ()),
    (TO_CHILDS, "parent link", Up.OPEN, True, ("a", "b")),
    (TO_SIBLINGS, None, Up.OPEN, False, ("parent",)),
    (TO_SIBLINGS, None, Up.NONE, False, ()),
    (TO_SIBLINGS, "a link", Up.OPEN, False, ("b",)),
    (TO_SIBLINGS, "deaf link", Up.OPEN, False, ("a", "b")),
    (TO_SIBLINGS, "a link", Up.NONE, False, ("b",)),
    (TO_SIBLINGS, "parent link", Up.OPEN, True, ()),
    (TO_GRAND_MASTER, None, Up.OPEN, False, ("parent",)),
    (TO_GRAND_MASTER, None, Up.NONE, True, ()),
    (TO_GRAND_MASTER, "a link", Up.OPEN, False, ("parent",)),
    (TO_GRAND_MASTER, "a link", Up.NONE, True, ()),
    (TO_GRAND_MASTER, "parent link", Up.OPEN, False, ()),
    (BROADCAST, None, Up.OPEN, False, ("parent", "a", "b")),
    (BROADCAST, None, Up.NONE, False, ("a", "b")),
    (BROADCAST, "a link", Up.OPEN, True, ("parent", "b")),
    (BROADCAST, "deaf link", Up.OPEN, True, ("parent", "a", "b")),
    (BROADCAST, "a link", Up.NONE, True, ("b",)),
    (BROADCAST, "parent link", Up.OPEN, True, ("a", "b")),
    (REQUEST_GRAND_MASTER, None, Up.OPEN, False, ("parent",)),
    (REQUEST_GRAND_MASTER, None, Up.NONE, True, ()),
    (REQUEST_GRAND_MASTER, "a link", Up.OPEN, False, ("parent",)),
    (REQUEST_GRAND_MASTER, "a link", Up.NONE, True, ()),
    (REQUEST_GRAND_MASTER, "parent link", Up.OPEN, False, ()),
    (REQUEST_ALL, None, Up.OPEN, False, ("parent", "a", "deaf")),
    (REQUEST_ALL, None, Up.NONE, False, ("a", "deaf")),
    (REQUEST_ALL, "a link", Up.OPEN, True, ("parent", "deaf")),
    (REQUEST_ALL, "b link", Up.OPEN, True, ("parent", "a", "deaf")),
    (REQUEST_ALL, "a link", Up.NONE, True, ("deaf",)),
    (REQUEST_ALL, "parent link", Up.OPEN, True, ("a", "deaf")),
]


@pytest.mark.parametrize(("kind", "link", "up", "deliver", "forward"), TABLE)
def test_where_a_message_goes(kind, link, up, deliver, forward):
    plan = middle(up).plan_here(kind, "x") if link is None else middle(up).plan(kind, "x", link)
    links = tuple(pid + " link" for pid in forward)
    if link is None:
        only = links[0] if len(links) == 1 and not deliver else None
        assert plan == Plan(deliver, links, None, False, *from_here(kind), only)
    else:
        assert plan == Plan(deliver, links)


def test_the_table_has_every_kind_at_every_place():
    places = {(kind, link and link.split()[0], up) for kind, link, up, _, _ in TABLE}
    for kind in RULES:
        assert {
            (kind, None, Up.OPEN),
            (kind, None, Up.NONE),
            (kind, "a", Up.OPEN),
            (kind, "a", Up.NONE),
        } <= places
        assert (kind, "parent", Up.OPEN) in places


@pytest.mark.parametrize("kind", [TO_PARENTS, TO_SIBLINGS, BROADCAST, REQUEST_ALL])
def test_in_an_outage_what_goes_up_is_lost(kind):
    plan = middle(Up.AWAY).plan_here(kind, "z")
    assert plan == Plan(False, (), None, True, *from_here(kind, "z"))


def test_in_an_outage_a_broadcast_still_goes_down():
    assert middle(Up.AWAY).plan_here(BROADCAST, "x") == Plan(
        False, ("a link", "b link"), None, True, *from_here(BROADCAST)
    )


def test_in_an_outage_what_comes_from_below_is_delivered_here():
    assert middle(Up.AWAY).plan(BROADCAST, "x", "a link") == Plan(True, ("b link",), None, True)


@pytest.mark.parametrize("kind", [TO_GRAND_MASTER, REQUEST_GRAND_MASTER])
@pytest.mark.parametrize("link", [None, "a link"])
def test_in_an_outage_nobody_stands_in_for_the_grand_master(link, kind):
    assert middle(Up.AWAY).plan(kind, "x", link) == Plan(
        False, (), AWAY, False, *(() if link else from_here(kind))
    )


def test_what_nobody_below_wants_does_not_go_down():
    router = middle(Up.NONE)
    assert router.plan_here(TO_CHILDS, "z").forward == ()
    assert router.plan_here(TO_CHILDS, "y").forward == ("b link",)


def test_a_child_that_is_not_online_yet_gets_everything():
    router = middle(Up.NONE)
    router.add_child("new link", "new")
    assert router.plan_here(TO_CHILDS, "z").forward == ("new link",)
    router.online("new link", ("new",))
    assert router.plan_here(TO_CHILDS, "z").forward == ()


def test_a_request_to_all_goes_down_where_it_is_answered_and_not_where_the_event_is_only_wanted():
    router = middle(Up.NONE)
    assert router.plan_here(REQUEST_ALL, "y").forward == ()
    router.add_child("new link", "new")
    assert router.plan_here(REQUEST_ALL, "y").forward == ("new link",)
    router.online("new link", ("new",))
    assert router.plan_here(REQUEST_ALL, "y").forward == ()
    router.peer_answers("b link", "y", 1, 1)
    assert router.plan_here(REQUEST_ALL, "y").forward == ("b link",)


def test_of_more_events_than_are_kept_the_further_ones_are_answered_and_not_counted(monkeypatch):
    monkeypatch.setattr(topology, "MAX_INTEREST", 2)
    router = middle(Up.NONE)
    router.peer_answers("b link", "y", 1, 1)
    router.peer_answers("b link", "z", 1, 1)

    assert router.peer_answers("b link", "too many", 1, 1) == Change()
    assert router.answerers_below("too many") == 0
    router.peer_answers("b link", "z", 3, 3)
    assert router.answerers_below("z") == 3
    router.peer_answers("b link", "y", 0, 0)
    router.peer_answers("b link", "one more", 1, 1)
    assert router.answerers_below("one more") == 1


# Kept decisions


def test_a_decision_is_kept_until_something_changes():
    router = middle()
    plan = router.plan_here(BROADCAST, "x")
    assert router.plan_here(BROADCAST, "x") is plan
    assert router.here[BROADCAST] == {"x": plan}
    assert router.plan(BROADCAST, "x", "a link") is router.plan(BROADCAST, "x", "a link")


CHANGES = {
    "a child comes": lambda router: router.add_child("new link", "new"),
    "a child goes": lambda router: router.remove_child("a link"),
    "a child wants more": lambda router: router.peer_interest("deaf link", "x", True),
    "a child wants less": lambda router: router.peer_interest("a link", "x", False),
    "a child wants something else": lambda router: router.peer_interests("a link", ("z",)),
    "a child answers": lambda router: router.peer_answers("b link", "x", 1, 1),
    "a child answers no more": lambda router: router.peer_answers("a link", "x", 0, 0),
    "this process answers": lambda router: router.own_answers("x", 1),
    "the server goes": lambda router: router.set_up(Up.AWAY),
    "this process has another name": lambda router: router.rename("new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_kept_when(change):
    router = middle()
    router.plan_here(BROADCAST, "x")
    version = router.version
    CHANGES[change](router)
    assert router.here[BROADCAST] == {}
    assert router.version != version


# Routes


def test_the_next_hop_is_the_parent_or_a_child():
    router = middle()
    assert router.hop(("target", "b")) == ("b link", None)
    assert router.hop(("target", "parent")) == ("parent link", None)


def test_a_hop_that_is_no_neighbour_is_reported_with_its_name():
    link, report = middle().hop(("target", "stranger"))
    assert link is None
    assert report == Report("'stranger' is no parent or child of me", "stranger")


def test_a_message_along_a_route_carries_what_is_left_of_it():
    router = middle()
    assert router.plan_here(SEND_TO, "x", ("b",)) == _along((SEND_TO, ("me",), None))
    rest = ("target", ("target", "next"))
    assert router.plan_here(SEND_TO, "x", ("target", "next", "b")) == _along((SEND_TO, ("me",), rest))


@pytest.mark.parametrize("name", ["me", "my first name"])
def test_a_name_of_ours_at_the_end_of_a_route_is_no_hop(name):
    router = middle()
    router.names.add("my first name")
    assert router.plan_here(SEND_TO, "x", ("b", name)) == _along((SEND_TO, ("me",), None))


def test_a_request_goes_along_a_route_as_a_message_does():
    router = middle()
    assert router.plan_here(REQUEST, "x", ("b",)) == _along((REQUEST, ("me",), None))
    rest = ("target", ("target", "next"))
    assert router.plan_here(REQUEST, "x", ("target", "next", "b")) == _along((REQUEST, ("me",), rest))
    assert router.plan_here(REQUEST, "x", ("stranger",)).report is not None


def test_a_request_to_any_goes_to_the_parent_by_its_link_while_that_can_be_reached():
    router, link = middle(), object()
    router.set_parent(link, "parent", Up.OPEN)
    assert router.plan_here(REQUEST_ANY, "x", (link,)).only is link
    router.set_up(Up.AWAY)
    assert router.plan_here(REQUEST_ANY, "x", (link,)).report == AWAY
    router.remove_parent()
    assert router.plan_here(REQUEST_ANY, "x", (link,)).report is not None


def test_a_message_to_a_child_has_no_route():
    assert middle().plan_here(TO_CHILD, "x", ("b",)) == _along((TO_CHILD, ("me",), None))


@pytest.mark.parametrize("kind", [TO_CHILD, REQUEST, REQUEST_ANY])
def test_a_message_to_a_child_may_go_by_its_link_while_that_is_there(kind):
    router = middle()
    plan = router.plan_here(kind, "x", ("b link",))  # not a pid, see fabric.py: any value but a text is one
    assert plan.report is not None
    link = object()
    router.add_child(link, "new")
    assert router.plan_here(kind, "x", (link,)).only is link
    router.remove_child(link)
    assert router.plan_here(kind, "x", (link,)).report is not None


def _along(header: Header) -> Plan:
    return Plan(forward=("b link",), header=header, event="x", only="b link")


def test_a_way_that_is_not_there_is_reported_and_looked_for_again():
    router = middle()
    plan = router.plan_here(TO_CHILD, "x", ("new",))
    assert plan == Plan(report=Report("me has no child with the pid 'new'"))
    assert router.plan_here(SEND_TO, "x", ("t", "new")).report is not None
    router.add_child("new link", "new")
    assert router.plan_here(TO_CHILD, "x", ("new",)).only == "new link"
    assert router.plan_here(SEND_TO, "x", ("t", "new")).only == "new link"


def test_a_route_is_kept_by_event_until_the_topology_changes():
    router = middle()
    plan = router.plan_here(SEND_TO, "x", ("b",))
    assert router.plan_here(SEND_TO, "x", ("b",)) is plan
    assert router.plan_here(SEND_TO, "y", ("b",)).event == "y"
    router.remove_child("b link")
    assert router.plan_here(SEND_TO, "x", ("b",)).report is not None


def test_in_an_outage_the_way_over_the_parent_is_interrupted():
    link, report = middle(Up.AWAY).hop(("target", "parent"))
    assert link is None
    assert report is not None
    assert (report.target, report.connected) == ("parent", False)


def test_a_parent_that_was_renamed_is_still_found_under_its_old_name():
    router = middle()
    router.parent_renamed("new name")
    assert router.hop(("parent",)) == router.hop(("new name",)) == ("parent link", None)
    assert router.parent_pid() == "new name"


def test_interest_that_comes_in_parts_adds_up():
    router = middle()
    assert router.peer_interests("deaf link", ("x", "p")) == Change(advertise=("p",))
    assert router.more_peer_interests("deaf link", ("y", "q", "q")) == Change(advertise=("q",))
    assert router.plan_here(TO_CHILDS, "q").forward == ("deaf link",)
    assert router.interest.of("deaf link") == {"x", "p", "y", "q"}
    with pytest.raises(Forged):
        router.more_peer_interests("parent link", ("x",))
    with pytest.raises(ProtocolError):
        router.more_peer_interests("a link", ("x", 1))


# One name for one neighbour


def test_a_parent_with_the_name_of_a_child_goes_by_another_one_here():
    router = middle()
    assert router.parent_renamed("a") == "a-parent"
    assert router.parent_pid() == "a-parent"
    assert router.hop(("a",)) == ("a link", None)
    assert router.hop(("a-parent",)) == ("parent link", None)


def test_what_such_a_parent_sends_can_be_answered():
    router = middle()
    router.parent_renamed("a")
    pids = router.accept("parent link", ("sibling", "a"))
    assert pids == ("sibling", "a-parent", "me")
    assert router.hop(pids[:-1]) == ("parent link", None)
    assert router.accept("a link", ("a",)) == ("a", "me")


def test_such_a_parent_keeps_its_name_when_the_child_is_gone():
    router = middle()
    router.parent_renamed("a")
    router.remove_child("a link")
    assert router.parent_renamed("a") == "a-parent"
    assert not router.is_taken("a")


@pytest.mark.parametrize("up", [Up.OPEN, Up.AWAY])
def test_what_was_meant_for_the_parent_before_never_reaches_its_successor(up):
    router = middle(up)
    router.set_up(Up.OPEN)
    route = router.accept("parent link", ("sibling", "parent"))[:-1]
    assert router.plan_here(SEND_TO, "x", route).only == "parent link"
    router.parent_replaced("other", "other")
    for former in (route, ("parent",)):
        assert router.hop(former) == (None, Report("'parent' is no parent or child of me", "parent"))
        assert router.plan_here(SEND_TO, "x", former).only is None
    assert router.hop(("other",)) == ("parent link", None)
    assert router.parent_pid() == "other"
    with pytest.raises(Forged):
        router.accept("parent link", ("sibling", "parent"))


def test_a_successor_with_the_same_pid_is_told_from_the_parent_before():
    router = middle()
    before = router.accept("parent link", ("sibling", "parent"))
    router.parent_replaced("parent", "parent-3fa9c2")
    after = router.accept("parent link", ("sibling", "parent"))
    assert (before, after) == (("sibling", "parent", "me"), ("sibling", "parent-3fa9c2", "me"))
    assert router.hop(before[:-1])[0] is None
    assert router.hop(after[:-1]) == ("parent link", None)
    assert router.parent_renamed("parent") == "parent-3fa9c2"  # as it says itself in answer to our online


def test_a_successor_with_the_name_of_a_child_goes_by_another_one():
    router = middle()
    router.parent_replaced("a", "a")
    assert router.parent_pid() == "a-parent"
    assert router.hop(("a",)) == ("a link", None)


def test_a_name_that_was_ours_and_is_the_parents_leads_to_the_parent():
    router = Router("4711")
    router.rename("4711-3fa9c2")
    router.set_parent("parent link", "4711", Up.OPEN)
    assert router.names == {"4711-3fa9c2"}
    assert router.hop(("4711",)) == ("parent link", None)


def test_a_parent_that_was_removed_gets_nothing_more():
    router = middle()
    router.plan_here(TO_PARENTS, "x")
    router.remove_parent()
    assert router.plan_here(TO_PARENTS, "x").forward == ()
    assert (router.parent_pid(), "parent link" in router.neighbours) == (None, False)
