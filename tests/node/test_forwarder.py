"""What passes through a node, and what its origin gets where it cannot."""

from __future__ import annotations

import queue

import pytest
from places import CEILING, FULL, join, queued, settle

from ipevents._core.bounded import Bounded
from ipevents._core.messages import (
    BROADCAST,
    EVENT,
    MAX_ROUTE,
    REPORT,
    SEND_TO,
    TO_CHILD,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._exceptions import Closed, ProtocolError, Undeliverable
from ipevents._node import forwarder as module
from ipevents._node.forwarder import STALE
from ipevents._platform.clock import monotonic


def test_a_route_that_breaks_further_on_is_told_to_its_origin(line):
    top, _, leaf = line
    top.hear_errors()
    leaf.hear_errors()
    top.send_to(["nobody", "leaf", "middle"], "x")
    error = top.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at, error.target) == ("x", "leaf", "nobody")
    leaf.send_to(["nobody", "middle"], "x")
    error = leaf.next_error()
    assert (error.event, error.at, error.target) == ("x", "middle", "nobody")


def test_such_notices_come_at_most_once_a_second_for_one_cause(line):
    top, _, _ = line
    top.hear_errors()
    for _ in range(50):
        top.send_to(["nobody", "middle"], "x")
    assert isinstance(top.next_error(), Undeliverable)
    settle(*line)
    assert top.errors.empty()
    link = line[1].links[0]
    assert (link.ended_here, link.dropped) == ({"undeliverable": 50}, {})


def test_what_a_forwarder_cannot_pass_on_is_told_to_its_origin(places):
    top, client, worker = places("top"), places("client"), places("worker").hear_errors()
    top.listen("x")
    join(top, client, limit=2000)
    join(client, worker)
    settle(top, client, worker)
    worker.send(TO_PARENTS, "x", b"x" * 3000)
    error = worker.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at) == ("x", "client")
    worker.send(TO_PARENTS, "x", 1)
    assert top.next()[:2] == ("x", (1,))
    assert client.link_to(top).dropped == {"too-large": 1}


def test_many_different_events_pass_a_relay_without_filling_it(line):
    top, middle, leaf = line
    top.listen("a", "b")
    with leaf.node.lock:
        plans = [leaf.node.router.plan_here(TO_PARENTS, event) for event in "ab"]
        for number in range(5000):
            assert leaf.links[0].outbox.offer(plans[number % 2], (number,), 10)
        leaf.links[0].prompt()
    assert [top.next()[1] for _ in range(5000)] == [(number,) for number in range(5000)]
    assert middle.link_to(top).dropped == {}
    assert middle.link_to(top).outbox.peak <= 5000


def test_a_message_for_a_child_is_delivered_with_its_name(line):
    top, middle, _ = line
    got = queue.Queue()
    middle.on("x", lambda message: got.put((message.type, message.to, message.route)))
    top.send_child("middle", "x")
    top.send_to(["middle"], "x")
    assert got.get(timeout=CEILING) == ("toChild", "middle", None)
    assert got.get(timeout=CEILING) == ("sendTo", "middle", ())
    assert TO_CHILD != SEND_TO


# Decisions


@pytest.fixture
def relay(places):
    """A place with a parent and two children, none of which takes anything; all of them are wanted below."""
    relay = places("relay")
    relay.parent = relay.make_parent("top")
    relay.one, relay.two = relay.make_child("one"), relay.make_child("two")
    relay.forwarder = relay.node.incoming._forwarder
    return relay


def record(kind=BROADCAST, path=("one",), event="x", to=None, messages=((1,),)):
    return (kind, path, event, to, list(messages))


def decide(place, link, one):
    return place.forwarder.decide(link, one, one[EVENT])


def forward(place, link, one, decision=None, size=None):
    return place.forwarder.forward(link, one, decision or decide(place, link, one), size)


def test_a_decision_is_kept_until_the_topology_changes(relay):
    first = decide(relay, relay.one, record())
    assert relay.one.decisions[BROADCAST, ("one",), "x", None] is first
    assert (first.pids, first.forward) == (("one", "relay"), (relay.parent, relay.two))
    decide(relay, relay.one, record(event="y"))
    assert len(relay.one.decisions) == 2
    three = relay.make_child("three")
    assert decide(relay, relay.one, record()).forward == (relay.parent, relay.two, three)
    assert list(relay.one.decisions) == [(BROADCAST, ("one",), "x", None)]


def test_decisions_for_ever_new_events_are_not_all_kept(relay, monkeypatch):
    relay.one.decisions = Bounded(2000)
    for number in range(10):
        decide(relay, relay.one, record(event=str(number)))
    assert 0 < len(relay.one.decisions) < 10


def test_long_routes_count_for_as_much_as_they_take(relay):
    relay.one.decisions = Bounded(100_000)
    for number in range(100):
        route = (*[f"{number}-{hop}" + "x" * 100 for hop in range(MAX_ROUTE - 1)], "two")
        one = record(SEND_TO, to=("far", route))
        decide(relay, relay.one, one)
        assert (SEND_TO, ("one",), "x", ("far", route)) in relay.one.decisions
    assert len(relay.one.decisions) < 100_000 // (100 * MAX_ROUTE)


def test_a_route_that_leads_nowhere_is_decided_each_time_and_not_kept(relay):
    one = record(SEND_TO, to=("far", ("far", "nobody")))
    for _ in range(2):
        assert decide(relay, relay.one, one).report is not None
        assert relay.one.decisions == {}
        assert relay.one.decided == relay.node.router.version


def test_what_comes_from_a_link_that_is_gone_is_stale(relay):
    with relay.node.lock:
        relay.node.presence.child_gone(relay.one, None)
    assert decide(relay, relay.one, record()) is STALE
    assert relay.one.decisions == {}


@pytest.mark.parametrize(
    ("kind", "to", "is_here", "next_hops"),
    [
        (TO_PARENTS, None, True, ["parent"]),
        (TO_SIBLINGS, None, False, ["two"]),
        (TO_GRAND_MASTER, None, False, ["parent"]),
        (TO_CHILD, None, True, []),
        (SEND_TO, None, True, []),
        (SEND_TO, ("two", ("two",)), False, ["two"]),
        (SEND_TO, ("far", ("far", "top")), False, ["parent"]),
        (SEND_TO, ("one", ("one",)), False, ["one"]),
    ],
)
def test_where_messages_go_that_a_child_has_sent(relay, kind, to, is_here, next_hops):
    decision = decide(relay, relay.one, record(kind, to=to))
    assert (decision.envelope is not None) is is_here
    assert decision.forward == tuple(getattr(relay, name) for name in next_hops)


def test_a_route_is_shorter_by_a_hop_further_on_and_none_at_the_target(relay):
    assert decide(relay, relay.one, record(SEND_TO, to=("far", ("far", "top")))).to == ("far", ("far",))
    assert decide(relay, relay.one, record(SEND_TO, to=("two", ("two",)))).to is None


@pytest.mark.parametrize(
    "forged", [record(path=("other",)), record(path=()), record(event=""), record(messages=())]
)
def test_a_record_that_cannot_be_is_refused_and_nothing_is_kept(relay, forged):
    """D7: a kind, a path or a route that cannot be."""
    with pytest.raises(ProtocolError):
        decide(relay, relay.one, forged)
    assert relay.one.decisions == {}


# Forwarding


def test_what_is_passed_on_has_us_on_its_path_and_counts_where_it_goes(relay):
    assert forward(relay, relay.one, record(messages=[(1,), (2,)])) == ""
    for link in (relay.parent, relay.two):
        assert queued(relay, link) == [(BROADCAST, ("one", "relay"), "x", None, [(1,), (2,)])]
        assert (link.forwarded, link.dropped) == (2, {})
    assert relay.node.outgoing.dirty == [relay.parent, relay.two]
    assert relay.one.forwarded == 0


def test_a_size_that_is_known_is_taken_for_the_limits_and_another_is_worked_out(relay):
    forward(relay, relay.one, record(), size=1000)
    known = relay.two.outbox.size
    forward(relay, relay.one, record(messages=[(b"x" * 1000,)]))
    assert known > 1000
    assert relay.two.outbox.size - known > 1000


def test_a_decision_that_is_not_of_this_topology_is_made_again(relay):
    decision = decide(relay, relay.one, record())
    three = relay.make_child("three")
    assert forward(relay, relay.one, record(), decision) == ""
    assert len(queued(relay, three)) == 1


def test_several_events_that_need_to_be_decided_again_go_nowhere_yet(relay):
    several = record(event=["x", "y"], messages=[(1,), (2,)])
    decision = relay.forwarder.decide(relay.one, several, "x")
    relay.make_child("three")
    assert forward(relay, relay.one, several, decision) is None
    assert queued(relay, relay.two) == []


def test_what_is_to_be_passed_on_for_a_link_that_is_gone_goes_nowhere(relay):
    decision = decide(relay, relay.one, record())
    with relay.node.lock:
        relay.node.presence.child_gone(relay.one, None)
    assert forward(relay, relay.one, record(messages=[(1,), (2,)]), decision) == "link-cut"
    assert relay.one.dropped == {}
    assert queued(relay, relay.two) == []


def test_a_target_that_goes_while_the_reader_waits_for_another_one_is_skipped(relay, monkeypatch):
    def wait(node, source, target, size, count):
        if target is relay.parent:
            node.presence.child_gone(relay.two, None)
        return True

    monkeypatch.setattr(module, "wait_to_forward", wait)
    relay.parent.outbox.begin_dropping()
    assert forward(relay, relay.one, record()) == ""
    assert len(queued(relay, relay.parent)) == 1
    assert (queued(relay, relay.two), relay.two.dropped, relay.two.forwarded) == ([], {"link-cut": 1}, 1)
    past = {key: count for key, count in relay.node.past.items() if count}
    assert past == {("", "forwarded"): 1, ("dropped", "link-cut"): 1}, "although it was remembered before"


def test_what_should_go_up_in_an_outage_goes_down_all_the_same_and_its_origin_is_told(relay):
    relay.hear_errors()
    with relay.node.lock:
        relay.node.router.set_up(Up.AWAY)
    assert forward(relay, relay.one, record()) == ""
    assert len(queued(relay, relay.two)) == 1
    assert (relay.parent.dropped, relay.parent.forwarded) == ({"disconnected": 1}, 1)
    assert queued(relay, relay.one) == [(REPORT, (), "x", "relay", None, "the server top is away")]


def test_a_next_hop_that_there_is_not_is_reported_with_its_name(relay):
    one = record(SEND_TO, to=("far", ("far", "nobody")))
    assert forward(relay, relay.one, one) == "undeliverable"
    assert relay.one.dropped == {}
    cause = "'nobody' is no parent or child of relay"
    assert queued(relay, relay.one) == [(REPORT, (), "x", "relay", "nobody", cause)]


@pytest.mark.parametrize("is_limited", [True, False])
def test_only_what_is_too_large_in_itself_is_not_passed_on_by_a_limited_link(relay, is_limited):
    relay.two.limit, relay.two.is_limited = 1000, is_limited
    to = ("two", ("two",))
    forward(relay, relay.one, record(SEND_TO, to=to, messages=[(b"x" * 600,), (b"y" * 600,)]))
    assert relay.two.forwarded == 2, "more than the limit together, each of them below it"
    forward(relay, relay.one, record(SEND_TO, to=to, messages=[(b"x" * 1200,), (b"y",)]))
    if not is_limited:
        assert (relay.two.forwarded, relay.two.dropped) == (4, {})
        return
    assert (relay.two.forwarded, relay.two.dropped) == (4, {"too-large": 2})
    assert len(queued(relay, relay.two)) == 1
    ((_, route, event, at, target, cause),) = queued(relay, relay.one)
    assert (route, event, at, target) == ((), "x", "relay", None)
    assert "bytes are more than two takes (1000, socket.maxMessage)" in cause


# Reports


def test_a_report_names_the_first_of_several_events_and_goes_back_along_the_path(relay):
    several = record(path=("leaf", "one"), event=["x", "y"], messages=[(1,), (2,)])
    with relay.node.lock:
        relay.forwarder.report_back(relay.one, several, "a cause", "nobody")
    assert queued(relay, relay.one) == [(REPORT, ("leaf",), "x", "relay", "nobody", "a cause")]


def test_a_cause_is_reported_once_a_second_to_each_origin(relay, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)

    def reports(path, cause):
        with relay.node.lock:
            relay.one.outbox.clear()
            relay.forwarder.report_back(relay.one, record(path=path), cause, None)
            return len(relay.one.outbox)

    assert [reports(("one",), "a"), reports(("one",), "a")] == [1, 0]
    assert [reports(("one",), "b"), reports(("leaf", "one"), "a")] == [1, 1]
    now += module.REPEAT_SECONDS - 0.001
    assert reports(("one",), "a") == 0
    now += 0.001
    assert [reports(("one",), "a"), reports(("one",), "a")] == [1, 0]


def test_causes_that_were_reported_are_not_all_remembered(relay, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DECISIONS", 3)
    with relay.node.lock:
        for number in range(20):
            relay.forwarder.report_back(relay.one, record(), str(number), None)
    assert len(relay.forwarder._reported) <= 4
    assert len(queued(relay, relay.one)) == 20


# What forwarding says of where messages went


def deaf(relay, link):
    """A child that is online and wants nothing."""
    with relay.node.lock:
        relay.node.router.peer_interests(link, ())
        relay.node.router.online(link, (link.name,))


def test_what_nobody_wants_further_on_is_filtered(relay):
    deaf(relay, relay.two)
    to_siblings = record(TO_SIBLINGS)
    assert not decide(relay, relay.one, to_siblings).goes_on
    assert forward(relay, relay.one, to_siblings) == "filtered"
    assert (relay.two.forwarded, queued(relay, relay.two), queued(relay, relay.one)) == (0, [], [])


def test_what_nobody_wants_any_more_since_it_was_decided_is_filtered(relay):
    decision = decide(relay, relay.one, record(TO_SIBLINGS))
    assert decision.goes_on
    deaf(relay, relay.two)
    assert forward(relay, relay.one, record(TO_SIBLINGS), decision) == "filtered"
    assert (relay.two.forwarded, queued(relay, relay.two)) == (0, [])


def test_what_should_go_up_only_in_an_outage_is_in_the_books_of_the_way_up(relay):
    with relay.node.lock:
        relay.node.router.set_up(Up.AWAY)
    assert forward(relay, relay.one, record(TO_PARENTS, messages=[(1,), (2,)])) == ""
    assert (relay.parent.forwarded, relay.parent.dropped) == (2, {"disconnected": 2})
    assert queued(relay, relay.parent) == []


def test_what_no_next_link_takes_is_in_their_books_and_not_filtered(relay, small):
    relay.hear_errors()
    to = ("two", ("two",))
    with relay.node.lock:
        for number in range(FULL):
            relay.two.outbox.put(record(event="old", messages=[(number,)]), 10)
        relay.two.progress = -1000.0
    assert forward(relay, relay.one, record(SEND_TO, to=to, messages=[(1,), (2,)])) == ""
    assert (relay.two.forwarded, relay.two.dropped) == (2, {"slow-peer": 2})
    assert relay.two.outbox.events == FULL
    assert [one[0] for one in queued(relay, relay.one)] == [REPORT]


def test_what_is_too_large_for_the_one_link_is_in_its_books(relay):
    relay.two.limit, relay.two.is_limited = 100, True
    to = ("two", ("two",))
    assert forward(relay, relay.one, record(SEND_TO, to=to, messages=[(b"x" * 200,)])) == ""
    assert (relay.two.forwarded, relay.two.dropped) == (1, {"too-large": 1})


def test_a_target_that_goes_while_the_reader_waits_for_it_has_all_in_the_books_of_the_past(
    relay, small, monkeypatch
):
    with relay.node.lock:
        for number in range(FULL):
            relay.two.outbox.put(record(event="old", messages=[(number,)]), 10)
        relay.two.forwarded = FULL
        relay.two.progress = monotonic()

    def wait_room(seconds):
        relay.node.presence.child_gone(relay.two, None)

    monkeypatch.setattr(relay.two, "wait_room", wait_room)
    assert forward(relay, relay.one, record(TO_SIBLINGS, messages=[(1,), (2,)])) == ""
    past = {key: count for key, count in relay.node.past.items() if count}
    assert past == {("", "forwarded"): FULL + 2, ("dropped", "link-cut"): FULL + 2}


def test_a_stop_while_the_reader_waits_leaves_what_was_not_put_out_of_the_books_of_the_target(
    relay, small, monkeypatch
):
    with relay.node.lock:
        for number in range(FULL):
            relay.two.outbox.put(record(event="old", messages=[(number,)]), 10)
        relay.two.progress = monotonic()

    def wait_room(seconds):
        relay.node.stage = Stage.CLOSED

    monkeypatch.setattr(relay.two, "wait_room", wait_room)
    with pytest.raises(Closed):
        forward(relay, relay.one, record())
    assert (relay.parent.forwarded, len(queued(relay, relay.parent))) == (1, 1)
    assert (relay.two.forwarded, relay.two.dropped) == (0, {})


def test_several_events_that_go_the_same_way_are_forwarded_and_counted_as_so_many(relay):
    several = record(event=["x", "y", "x"], messages=[(1,), (2,), (3,)])
    decision = relay.forwarder.decide(relay.one, several, "x")
    assert forward(relay, relay.one, several, decision) == ""
    assert (relay.two.forwarded, relay.two.outbox.events) == (3, 3)
