"""Control records: what a node does with them, and what it delivers and passes on."""

from __future__ import annotations

import queue
import threading

import pytest
from places import CEILING, FULL, join, queued

from ipevents._core.messages import (
    INTEREST,
    INTERESTS,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    REPORT,
    TO_PARENTS,
)
from ipevents._exceptions import Forged, Undeliverable
from ipevents._node.controls import put_report


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


def test_who_goes_further_down_is_told_by_who_noticed(line):
    top, _, leaf = line
    top.listen("offline")
    leaf.links[0].disconnect()
    assert top.next() == ("offline", ("leaf",), ("middle", "top"))


def test_a_record_about_a_process_goes_to_who_has_the_link(places, raw):
    top = places("top").listen("x")
    raw(top).send((99, "news"), (TO_PARENTS, ("raw",), "x", None, [()]))
    top.next()
    assert top.controls == [(99, "news")]


# What a record does


@pytest.fixture
def relay(places):
    """A place with a parent and a child that is online, both without a connection."""
    relay = places("relay")
    relay.parent, relay.child = relay.make_parent("top"), relay.make_child("child")
    take(relay, relay.child, (ONLINE, ("child",)))
    with relay.node.lock:
        relay.parent.outbox.clear()
        relay.child.outbox.clear()
        relay.controls.clear()
    return relay


def take(place, link, record):
    place.node.incoming.controls.take(link, record)


BELOW = {
    "interest": (INTEREST, "x", True),
    "interests": (INTERESTS, ("x",)),
    "more interests": (MORE_INTERESTS, ("x",)),
    "online": (ONLINE, ("child",)),
    "online of a grandchild": (ONLINE, ("leaf", "child")),
    "offline": (OFFLINE, ("child",), "leaf", 0),
}


@pytest.mark.parametrize("name", BELOW)
def test_what_still_comes_from_a_child_that_is_gone_changes_nothing(relay, name):
    relay.listen("online", "offline")
    with relay.node.lock:
        relay.node.presence.child_gone(relay.child, None)
        relay.parent.outbox.clear()
    version = relay.node.router.version
    take(relay, relay.child, BELOW[name])
    assert relay.node.router.version == version
    assert queued(relay, relay.parent) == queued(relay, relay.child) == relay.controls == []
    assert relay.heard.empty()


@pytest.mark.parametrize("name", BELOW)
def test_a_parent_has_no_say_in_what_is_below_us(relay, name):
    with pytest.raises(Forged):
        take(relay, relay.parent, BELOW[name])


def test_interest_goes_up_when_it_begins_and_when_it_ends_and_not_in_between(relay):
    for record in [(INTEREST, "x", True), (MORE_INTERESTS, ("x", "y")), (INTEREST, "x", True)]:
        take(relay, relay.child, record)
    assert queued(relay, relay.parent) == [[INTEREST, "x", True], [INTEREST, "y", True]]
    with relay.node.lock:
        relay.parent.outbox.clear()
    take(relay, relay.child, (INTERESTS, ("y", "z")))
    assert sorted(queued(relay, relay.parent)) == [[INTEREST, "x", False], [INTEREST, "z", True]]


def test_an_online_is_passed_on_and_delivered_and_only_a_childs_own_is_answered(relay):
    relay.listen("online")
    take(relay, relay.child, (ONLINE, ("leaf", "child")))
    assert queued(relay, relay.parent) == [(ONLINE, ("leaf", "child", "relay"))]
    assert queued(relay, relay.child) == []
    take(relay, relay.child, (ONLINE, ("child",)))
    assert queued(relay, relay.child) == [(PARENT, "relay")]
    assert [relay.next()[2] for _ in range(2)] == [("leaf", "child", "relay"), ("child", "relay")]
    assert relay.controls == [(ONLINE, ("child",))]


def test_an_offline_is_passed_on_and_delivered_with_its_exit_code(relay):
    got = queue.Queue()
    relay.on("offline", lambda message, pid: got.put((pid, message.exitcode, message.pids)))
    take(relay, relay.child, (ONLINE, ("leaf", "child")))
    with relay.node.lock:
        relay.parent.outbox.clear()
    take(relay, relay.child, (OFFLINE, ("child",), "leaf", -9))
    assert queued(relay, relay.parent) == [(OFFLINE, ("child", "relay"), "leaf", -9)]
    assert got.get_nowait() == ("leaf", -9, ("child", "relay"))
    assert relay.node.router.netmap.as_dict() == {"child": {}}


def test_the_parents_answer_is_delivered_and_only_a_new_name_is_not(relay):
    relay.listen("parent")
    relay.node.incoming.holding = True  # until the parent has answered
    take(relay, relay.parent, (PARENT, "new"))
    assert (relay.parent.name, relay.node.router.parent_pid()) == ("new", "new")
    assert relay.heard.empty()
    assert relay.node.incoming.holding
    relay.node.announced = True
    take(relay, relay.parent, (PARENT, "new"))
    assert relay.next() == ("parent", ("new",), ("new", "relay"))
    assert not relay.node.incoming.holding


def test_a_parent_with_the_name_of_a_child_is_called_otherwise(relay):
    relay.node.announced = True
    relay.listen("parent")
    take(relay, relay.parent, (PARENT, "child"))
    assert relay.next()[1] == ("child-parent",)
    assert relay.parent.name == "child-parent"


@pytest.mark.parametrize(("whose", "pid"), [("child", "me"), ("parent", 5), ("parent", None)])
def test_nobody_else_says_that_it_is_the_parent_and_no_parent_without_a_name(relay, whose, pid):
    with pytest.raises(Forged, match="the parent of relay"):
        take(relay, getattr(relay, whose), (PARENT, pid))
    assert relay.node.router.parent_pid() == "top"


# Reports of what was lost


def test_a_report_that_has_come_home_is_an_error_and_is_counted(relay):
    relay.hear_errors()
    take(relay, relay.child, (REPORT, (), "x", "leaf", "nobody", "a cause"))
    error = relay.next_error()
    assert (type(error), error.event, error.at, error.target, error.cause) == (
        Undeliverable,
        "x",
        "leaf",
        "nobody",
        "a cause",
    )
    assert relay.node.incoming.controls.undeliverable == 1


def test_a_report_goes_one_hop_further_on_its_way_home(relay):
    relay.hear_errors()
    take(relay, relay.child, (REPORT, ("far", "top"), "x", "leaf", None, "a cause"))
    assert queued(relay, relay.parent) == [(REPORT, ("far",), "x", "leaf", None, "a cause")]
    assert relay.node.incoming.controls.undeliverable == 0


def test_a_report_whose_way_home_is_gone_is_dropped(relay):
    relay.hear_errors()
    take(relay, relay.parent, (REPORT, ("gone",), "x", "top", None, "a cause"))
    settle_notices(relay)
    assert relay.errors.empty()
    assert queued(relay, relay.parent) == queued(relay, relay.child) == []


def settle_notices(place):
    done = threading.Event()
    place.node.events.notify(done.set)
    assert done.wait(CEILING)


def test_a_report_does_not_wait_for_room(relay, small):
    record = (REPORT, (), "x", "relay", None, "a cause")
    with relay.node.lock:
        for _ in range(FULL + 2):
            put_report(relay.child, record)
    assert queued(relay, relay.child) == [record] * FULL
