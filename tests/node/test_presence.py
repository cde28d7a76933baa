"""What the neighbours of a node know of it."""

from __future__ import annotations

import gc

import pytest
from places import inside, join, settle

from ipevents._core.messages import BROADCAST, RESERVED_EVENTS, TO_CHILDS, TO_GRAND_MASTER, TO_PARENTS
from ipevents._core.router import Up
from ipevents._exceptions import NotConnected, Undeliverable


def test_who_goes_is_told_deepest_first(line):
    top, middle, _ = line
    top.listen("offline")
    middle.link_to(top).close_session()
    assert top.next() == ("offline", ("leaf",), ("top",))
    assert top.next() == ("offline", ("middle",), ("top",))
    assert top.node.router.netmap.as_dict() == {}


def test_interest_is_told_and_withdrawn_over_all_levels(line):
    top, middle, leaf = line
    listener = lambda message: None  # noqa: E731
    leaf.on("x", listener)
    settle(*line)
    assert top.node.router.interest.of(top.link_to(middle)) >= {"x"}
    leaf.node.dispatcher.remove("x", listener)
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


@pytest.mark.parametrize("event", [*sorted(RESERVED_EVENTS), "error"])
def test_nobody_is_told_of_listeners_for_what_cannot_be_sent(line, event):
    top, middle, leaf = line
    leaf.on(event, lambda message, *args: None)
    settle(*line)
    assert event not in top.node.router.interest.of(top.link_to(middle))


def test_a_weak_receiver_that_is_collected_inside_the_state_lock_withdraws_its_interest(line):
    top, middle, _ = line

    def receiver(message):
        """Nothing."""

    middle.node.dispatcher.signal("x").connect(receiver)
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    with middle.node.lock:
        del receiver
        gc.collect()
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


def test_in_an_outage_the_way_up_is_refused_or_lost_with_one_error(line):
    _, middle, leaf = line
    middle.hear_errors().listen("x")
    leaf.hear_errors()
    with middle.node.lock:
        middle.node.router.set_up(Up.AWAY)
    for _ in range(3):
        middle.send(TO_PARENTS, "x")
    error = middle.next_error()
    assert isinstance(error, NotConnected)
    here = middle.node.place()
    assert str(error) == f"the server top is away; what {here} sends upwards is lost until it is back"
    middle.send(TO_GRAND_MASTER, "x")
    assert isinstance(middle.next_error(), NotConnected)
    middle.send_to(["top"], "x")
    assert isinstance(middle.next_error(), NotConnected)
    leaf.send(BROADCAST, "x", 5)
    assert isinstance(leaf.next_error(), Undeliverable)
    assert middle.next()[1] == (5,), "here it is heard"
    assert middle.errors.empty()
    assert middle.link_to(line[0]).dropped == {"disconnected": 4}


@pytest.mark.parametrize("is_early", [True, False])
def test_what_only_a_wait_wants_comes_down_to_it(places, is_early):
    top, child = places("top"), places("child")
    if is_early:
        child.node.dispatcher.begin_wait("x", child.heard.put)
    join(top, child)
    if not is_early:
        child.node.dispatcher.begin_wait("x", child.heard.put)
    settle(top, child)
    top.send(TO_CHILDS, "x")
    assert child.next().event == "x"
    assert "x" not in child.node.dispatcher.events()


def test_on_and_off_from_inside_change_the_interest_on_leaving(line):
    top, middle, _ = line
    listener = lambda message: None  # noqa: E731
    inside(middle, lambda: middle.on("x", listener))
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    inside(middle, lambda: middle.node.dispatcher.remove("x", listener))
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))
