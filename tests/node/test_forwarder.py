"""What a process passes on: events, and why they go no further."""

from __future__ import annotations

import queue
import sys

import numpy
from places import CEILING, SEVERAL, join, settle

from ipevents._core.messages import (
    BROADCAST,
    INTERESTS,
    ONLINE,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._exceptions import (
    Undeliverable,
)


def test_a_large_array_is_passed_on_untouched_by_listeners_on_the_way(line):
    top, middle, leaf = line
    middle.on("x", lambda message, array: array.fill(1))
    got = queue.Queue()
    leaf.on("x", lambda message, array: got.put(array))
    settle(*line)
    for _ in range(5):
        top.send(BROADCAST, "x", numpy.zeros(100_000))
        array = got.get(timeout=CEILING)
        assert (array == 0).all()
        assert array.flags.writeable


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
    assert line[1].links[0].dropped == {"undeliverable": 50}


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


def test_a_record_of_several_events_is_passed_on_whole_where_all_go_the_same_way(places, raw):
    top = places("top")
    one, other = raw(top, "one"), raw(top, "other")  # not online: whatever it will want is not known
    one.send((BROADCAST, ("one",), *SEVERAL))
    assert other.next_records() == [(BROADCAST, ("one", "top"), *SEVERAL)]


def test_a_record_of_several_events_is_divided_where_they_part(places, raw):
    top = places("top").listen("a", "online")
    one, other = raw(top, "one"), raw(top, "other")
    other.send((INTERESTS, ("b", "c")), (ONLINE, ("other",)))
    assert top.next()[0] == "online"
    one.send((BROADCAST, ("one",), *SEVERAL))
    assert other.next_event() == ("b", [b"2", (3,)])
    assert [top.next()[:2] for _ in range(2)] == [("a", (1,)), ("a", (5,))]
    one.send((BROADCAST, ("one",), "a", None, [(6,)]))
    assert top.next()[:2] == ("a", (6,))  # so the record before is done with
    assert (top.node.incoming.unheard, top.node.incoming.delivered >= 2) == (3, True)


def test_a_process_that_ends_still_passes_on_what_is_for_others(places, raw):
    top = places("top").on("x", lambda message, *args: sys.exit(3))
    one, other = raw(top, "one"), raw(top, "other")
    one.send(
        (TO_PARENTS, ("one",), "x", None, [(1,)]),
        (TO_SIBLINGS, ("one",), "y", None, [(2,)]),
    )
    assert other.next_event() == ("y", [(2,)])


def test_messages_of_several_events_are_decided_for_one_topology(places, raw, monkeypatch):
    top = places("top")
    one, other = raw(top, "one"), raw(top, "other")
    top.listen("online")
    other.send((INTERESTS, ("b", "c")), (ONLINE, ("other",)))
    assert top.next()[0] == "online"
    decided = top.node.incoming._forwarder._decided

    def change_in_between(link, kind, path, event, to):
        decision = decided(link, kind, path, event, to)
        if event == "a" and not top.node.router.wants(other.link, "a"):
            top.node.router.peer_interest(other.link, "a", True)
        return decision

    monkeypatch.setattr(top.node.incoming._forwarder, "_decided", change_in_between)
    one.send((BROADCAST, ("one",), *SEVERAL))
    assert other.next_event() == (SEVERAL[0], SEVERAL[2])


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
