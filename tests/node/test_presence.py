"""What a tree is told of who comes and goes, and of what is listened to."""

from __future__ import annotations

import gc

import pytest
from places import join, settle

from ipevents._core.messages import (
    RESERVED_EVENTS,
    TO_CHILDS,
)


def test_online_is_told_to_all_above_and_parent_to_the_child(places):
    top, middle, leaf = places("top").listen("online"), places("middle").listen("online"), places("leaf")
    leaf.listen("parent")
    join(top, middle)
    assert top.next() == ("online", (), ("middle", "top"))
    join(middle, leaf)
    assert middle.next() == ("online", (), ("leaf", "middle"))
    assert top.next() == ("online", (), ("leaf", "middle", "top"))
    assert leaf.next() == ("parent", ("middle",), ("middle", "leaf"))
    assert top.node.router.netmap.as_dict() == {"middle": {"leaf": {}}}


def test_who_goes_is_told_deepest_first(line):
    top, middle, _ = line
    top.listen("offline")
    middle.link_to(top).close_session()
    assert top.next() == ("offline", ("leaf",), ("top",))
    assert top.next() == ("offline", ("middle",), ("top",))
    assert top.node.router.netmap.as_dict() == {}


def test_who_goes_further_down_is_told_by_who_noticed(line):
    top, _, leaf = line
    top.listen("offline")
    leaf.links[0].close_session()
    assert top.next() == ("offline", ("leaf",), ("middle", "top"))


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


def test_what_nobody_wants_is_not_put_on_the_wire(line):
    top, middle, _ = line
    sent = top.link_to(middle).sent
    top.send(TO_CHILDS, "nobody listens")
    settle(*line)
    assert top.link_to(middle).sent == sent + 2, "the two marks"


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
