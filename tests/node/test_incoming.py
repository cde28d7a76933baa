"""What arrives over a link: delivered, held for our ``online``, counted, or refused."""

from __future__ import annotations

import queue
import socket
import sys

import numpy
import pytest
from places import CEILING, join, settle
from scripts import wait_until

from ipevents._core.messages import (
    BROADCAST,
    INTEREST,
    INTERESTS,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    REPORT,
    SEND_TO,
    TO_CHILDS,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._exceptions import ProtocolError, UnreadablePayload
from ipevents._payload import forms

# Arguments


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


def test_arguments_that_cannot_be_read_here_are_an_error_and_the_next_event_comes(line):
    class Breaks:
        def __reduce__(self):
            return int, ("no number",)

    top, middle, _ = line
    middle.hear_errors().listen("x")
    settle(*line)
    top.send(BROADCAST, "x", Breaks())
    top.send(BROADCAST, "x", 1)
    assert isinstance(middle.next_error(), UnreadablePayload)
    assert middle.next()[1] == (1,)


def test_arguments_are_not_opened_where_nobody_listens(line):
    class Breaks:
        def __reduce__(self):
            return int, ("no number",)

    top, middle, leaf = line
    middle.hear_errors()
    leaf.hear_errors().listen("x")
    settle(*line)
    top.send(BROADCAST, "x", Breaks())
    assert isinstance(leaf.next_error(), UnreadablePayload)
    assert middle.errors.empty()


# Several events in a record


SEVERAL = ["a", "b", "b", "c", "a"], None, [(1,), b"2", (3,), (4,), (5,)]


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


@pytest.mark.parametrize("payload", [(1,), "pickled"], ids=["plain", "pickled"])
def test_what_was_received_when_a_listener_ended_the_process_is_counted_and_not_handled(places, raw, payload):
    top = places("top")
    if payload == "pickled":
        payload, _ = forms.encode((1,), {"key": 1})

    def ends(message, *args, **kwargs):
        top.heard.put(message.event)
        raise SystemExit(3)

    top.on("a", ends).on("a", ends).on("b", ends)
    one = raw(top, "one")
    one.send(
        (TO_PARENTS, ("one",), "a", None, [payload] * 5),
        (TO_PARENTS, ("one",), "b", None, [payload] * 2),
        (TO_PARENTS, ("one",), ["a", "b", "c"], None, [payload] * 3),
    )
    one.socket.shutdown(socket.SHUT_WR)
    assert top.next_closed() == ("one", None)
    assert top.next() == "a"
    assert top.heard.empty()
    assert [exc.code for exc in top.exits] == [3]
    incoming = top.node.incoming
    assert (incoming.delivered, incoming.counters, incoming.unheard) == (1, {"stopped": 4 + 2 + 3}, 0)


def test_a_process_that_ends_in_the_middle_of_several_events_handles_none_of_the_rest(places, raw):
    top = places("top").listen("a")

    def ends(message, *args):
        raise SystemExit(3)

    top.on("b", ends)
    one = raw(top, "one")
    one.send((TO_PARENTS, ("one",), ["a", "b", "c", "a"], None, [(1,), (2,), (3,), (4,)]))
    one.socket.shutdown(socket.SHUT_WR)
    assert top.next_closed() == ("one", None)
    assert top.next()[:2] == ("a", (1,))
    assert top.heard.empty()
    assert top.node.incoming.counters == {"stopped": 2}


def test_a_process_that_ends_still_passes_on_what_is_for_others(places, raw):
    top = places("top").on("x", lambda message, *args: sys.exit(3))
    one, other = raw(top, "one"), raw(top, "other")
    one.send(
        (TO_PARENTS, ("one",), "x", None, [(1,)]),
        (TO_SIBLINGS, ("one",), "y", None, [(2,)]),
    )
    assert other.next_event() == ("y", [(2,)])


def test_what_still_comes_over_a_link_that_is_gone_is_counted_once(places, raw):
    top = places("top").listen("a", "b")
    one = raw(top, "one")
    with top.node.lock:
        top.node.presence.child_gone(one.link, None)
    top.node.incoming.receive(
        one.link, [(TO_PARENTS, ("one",), *SEVERAL), (TO_PARENTS, ("one",), "a", None, [(6,)])], 1
    )
    assert one.link.dropped == {"link-cut": 6}
    assert top.heard.empty()


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


def test_what_waits_for_our_online_may_be_of_several_events(places, raw):
    top, child = places("top"), places("child").listen("a", "b")
    child.node.incoming.holding = True
    join(top, child, online=False)
    for event, number in [("a", 1), ("b", 2), ("a", 3)]:
        top.send(TO_CHILDS, event, number)
    with child.node.lock:
        child.node.presence.announce()
    assert [child.next()[:2] for _ in range(3)] == [("a", (1,)), ("b", (2,)), ("a", (3,))]


def test_what_waits_for_our_online_has_been_delivered_when_that_is_told(places, raw):
    top, child = places("top"), places("child").listen("a")
    incoming = child.node.incoming
    incoming.holding = True
    join(top, child, online=False)
    top.send(TO_CHILDS, "a", 1)
    wait_until(lambda: incoming.held.count == 1)
    assert not incoming.held.released.is_set()
    with child.node.lock:
        child.node.presence.announce()
    assert incoming.held.released.wait(CEILING)
    assert child.next()[:2] == ("a", (1,))
    incoming.drop_held()
    assert child.node.router.parent.dropped == {}


def test_what_waits_for_an_online_that_is_never_said_is_counted(places, raw):
    top, child = places("top"), places("child").listen("a")
    incoming = child.node.incoming
    incoming.holding = True
    join(top, child, online=False)
    for number in range(3):
        top.send(TO_CHILDS, "a", number)
    wait_until(lambda: incoming.held.count == 3)
    incoming.drop_held()
    incoming.drop_held()
    assert (child.node.router.parent.dropped, incoming.held.count) == ({"stopped": 3}, 0)


def full(top, child, monkeypatch):
    """A child that may hold two events, has two, and whose reader waits with a third one."""
    from ipevents._node import held

    monkeypatch.setattr(held, "_MAX_MESSAGES", 2)
    incoming = child.node.incoming
    incoming.holding = True
    join(top, child, online=False)
    for number in range(3):
        top.send(TO_CHILDS, "a", number)
        wait_until(lambda: child.node.router.parent.received == number + 1)  # noqa: B023  # called at once
    return incoming


def test_a_reader_with_a_full_store_delivers_nothing_where_online_is_never_said(places, raw, monkeypatch):
    top, child = places("top"), places("child").listen("a")
    incoming = full(top, child, monkeypatch)
    incoming.drop_held()
    top.send(TO_CHILDS, "a", 3)
    wait_until(lambda: child.node.router.parent.dropped == {"stopped": 4})
    assert (incoming.held.count, child.node.incoming.delivered) == (0, 0)


def test_a_reader_with_a_full_store_goes_on_when_online_is_said(places, raw, monkeypatch):
    top, child = places("top"), places("child").listen("a")
    incoming = full(top, child, monkeypatch)
    with child.node.lock:
        child.node.presence.announce()
    incoming.held.online_said.set()
    assert [child.next()[:2] for _ in range(3)] == [("a", (0,)), ("a", (1,)), ("a", (2,))]


# Hostile peers


HOSTILE = {
    "another origin": (BROADCAST, ("somebody",), "x", None, [()]),
    "an origin that is not below it": (BROADCAST, ("somebody", "raw"), "x", None, [()]),
    "our own name": (BROADCAST, ("top",), "x", None, [()]),
    "no path": (BROADCAST, (), "x", None, [()]),
    "a path that is a text": (BROADCAST, "raw", "x", None, [()]),
    "a path that is a list": (BROADCAST, ["raw"], "x", None, [()]),
    "a reserved event": (TO_PARENTS, ("raw",), "online", None, [()]),
    "an error": (TO_PARENTS, ("raw",), "error", None, [()]),
    "an event that is a number": (TO_PARENTS, ("raw",), 5, None, [()]),
    "events that are numbers": (TO_PARENTS, ("raw",), [5], None, [()]),
    "events that are lists": (TO_PARENTS, ("raw",), [["x"]], None, [()]),
    "no events": (TO_PARENTS, ("raw",), [], None, []),
    "more events than messages": (TO_PARENTS, ("raw",), ["x", "x"], None, [()]),
    "more messages than events": (TO_PARENTS, ("raw",), ["x"], None, [(), ()]),
    "a reserved event among others": (TO_PARENTS, ("raw",), ["x", "offline"], None, [(), ()]),
    "a long event among others": (TO_PARENTS, ("raw",), ["x", "x" * 1000], None, [(), ()]),
    "events without messages": (TO_PARENTS, ("raw",), ["x"], None, None),
    "a long event": (TO_PARENTS, ("raw",), "x" * 1000, None, [()]),
    "no messages": (TO_PARENTS, ("raw",), "x", None, []),
    "messages that are none": (TO_PARENTS, ("raw",), "x", None, 5),
    "too few items": (TO_PARENTS, ("raw",), "x"),
    "too many items": (TO_PARENTS, ("raw",), "x", None, [()], 6),
    "kind 0": (0, ("raw",), "x", None, [()]),
    "kind -1": (-1, ("raw",), "x", None, [()]),
    "kind None": (None, ("raw",), "x", None, [()]),
    "kind text": ("x", ("raw",), "x", None, [()]),
    "a route that is a text": (SEND_TO, ("raw",), "x", "top", [()]),
    "a route in a broadcast": (BROADCAST, ("raw",), "x", ("top", ("top",)), [()]),
    "an empty route": (SEND_TO, ("raw",), "x", ("top", ()), [()]),
    "somebody else's online": (ONLINE, ("other",)),
    "an online from nowhere": (ONLINE, ("deep", "middle", "raw")),
    "an online without a path": (ONLINE, ()),
    "an online that is a number": (ONLINE, 5),
    "an online without anything": (ONLINE,),
    "an offline of nobody": (OFFLINE, ("raw",), None, None),
    "an offline of another": (OFFLINE, ("other",), "x", None),
    "an offline that is short": (OFFLINE, ("raw",)),
    "interest in a number": (INTEREST, 5, True),
    "interest in a list": [INTEREST, ["x"], True],
    "interest that is short": (INTEREST, "x"),
    "interests in a text": (INTERESTS, "text"),
    "interests in numbers": (INTERESTS, (1, 2)),
    "more interests in a list": (MORE_INTERESTS, ["x"]),
    "more interests with a number": (MORE_INTERESTS, ("x", 1)),
    "a parent that is a child": (PARENT, "raw"),
    "a report that is short": (REPORT, ()),
    "a report with a route that is a number": (REPORT, 5, "x", "raw", None, "cause"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_that_cannot_be_closes_its_link_and_no_other(places, raw, name, caplog):
    top, child = places("top").listen("x", "online", "offline", "error"), places("child")
    join(top, child)
    assert top.next()[0] == "online"
    peer = raw(top)
    peer.send(HOSTILE[name])
    pid, error = top.next_closed()
    assert pid == "raw"
    assert isinstance(error, ProtocolError)
    assert str(error).startswith("raw sent what makes no sense, and the connection ends: ")
    child.send(TO_PARENTS, "x", 1)
    assert top.next()[:2] == ("x", (1,))
    assert top.heard.empty()
    assert caplog.records == [], "it is not a fault of the library"


def test_good_records_before_a_bad_one_are_delivered(places, raw):
    top = places("top").listen("x")
    peer = raw(top)
    peer.send((BROADCAST, ("raw",), "x", None, [(1,), (2,)]), (BROADCAST, ("forged",), "x", None, [(3,)]))
    assert [top.next()[1] for _ in range(2)] == [(1,), (2,)]
    assert isinstance(top.next_closed()[1], ProtocolError)


# What equals a good record's kind or stands for its list of messages.
DISGUISED = {
    "a kind that is a truth": (True, ("raw",), "x", None, [(2,)]),
    "a kind that is a float": (1.0, ("raw",), "x", None, [(2,)]),
    "messages that are a text": (TO_PARENTS, ("raw",), "x", None, "text"),
    "messages that are a tuple": (TO_PARENTS, ("raw",), "x", None, ((2,),)),
    "several, a kind that is a truth": (True, ("raw",), ["x", "y"], None, [(2,), (3,)]),
    "several, a kind that is a float": (1.0, ("raw",), ["x", "y"], None, [(2,), (3,)]),
}


@pytest.mark.parametrize("name", DISGUISED)
def test_a_record_that_only_looks_like_the_one_before_it_goes_no_further(places, raw, name):
    top, middle = places("top").listen("x", "y"), places("middle")
    join(top, middle)
    peer = raw(middle)
    peer.send((ONLINE, ("raw",)), *((TO_PARENTS, ("raw",), event, None, [(1,)]) for event in ("x", "y")))
    assert [top.next()[1] for _ in range(2)] == [(1,), (1,)]
    peer.send(DISGUISED[name])
    pid, error = middle.next_closed()
    assert pid == "raw"
    assert isinstance(error, ProtocolError)
    middle.send(TO_PARENTS, "x", 4)
    assert top.next()[:2] == ("x", (4,))
    assert top.closed.empty()


@pytest.mark.parametrize(
    "payload",
    [None, 5, "text", b"garbage", {}, [], [b"meta"], [b"meta", [(1, True)], 3], ((1,), 2), ["a", "b"]],
)
def test_payloads_that_are_none_hurt_nobody_wherever_they_go(line, raw, payload):
    top, middle, leaf = line
    leaf.listen("x", "y")
    settle(*line)
    peer = raw(top)
    peer.send((BROADCAST, ("raw",), "x", None, [b"\x80\x05N.", payload]))
    peer.send((BROADCAST, ("raw",), "x", None, [()]), (BROADCAST, ("raw",), "x", None, [payload]))
    top.send(BROADCAST, "y", 1)
    while leaf.next()[:2] != ("y", (1,)):
        pass
    settle(*line)
    assert middle.node.router.neighbours.keys() == {middle.link_to(top), middle.link_to(leaf)}


def test_a_listener_that_cancels_does_not_end_the_link(line):
    class Cancelled(BaseException):
        """As asyncio's: no Exception."""

    top, middle, _ = line

    def cancel(message):
        raise Cancelled

    middle.hear_errors().on("x", cancel).listen("y")
    settle(*line)
    top.send(BROADCAST, "x")
    assert isinstance(middle.next_error(), Cancelled)
    top.send(BROADCAST, "y")
    middle.next()
