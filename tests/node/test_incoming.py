"""What arrives over a link: delivered, held for our ``online``, counted, or refused."""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import weakref

import numpy
import pytest
from places import CEILING, join, settle, watch_waits
from scripts import wait_until

from ipevents._core.books import DROPPED, NONE, group_of, plus
from ipevents._core.messages import (
    ACKNOWLEDGED,
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
    count_messages,
)
from ipevents._core.state import Stage
from ipevents._core.window import Written
from ipevents._exceptions import ProtocolError, UnreadablePayload
from ipevents._payload import forms
from ipevents._transport.frame_reader import LOST

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


# What became of it


def became(link):
    """What was received, and each number of what became of it, which have to be as many."""
    assert link.received == link.delivered + sum(link.outcomes)
    assert sum(link.ended_here.values()) == link.outcomes[DROPPED]
    return link.received, link.delivered, link.outcomes, link.ended_here


def ended(place, link):
    """What ended here of what came by this link, by cause."""
    with place.node.lock:
        return group_of(link.counters(), "endedHere")


def read_all(place, peer):
    """Until all that the peer has sent was read; returns the error of the link, if there was one."""
    peer.socket.shutdown(socket.SHUT_WR)
    pid, error = place.next_closed()
    assert pid == peer.pid
    return error


@pytest.mark.parametrize("event", ["x", ["x", "x", "x", "x", "x"]], ids=["one name", "a name for each"])
def test_a_listener_that_is_called_once_has_heard_one_event_of_a_burst(places, raw, event):
    top, heard = places("top"), []
    top.node.dispatcher.add("x", lambda message, number: heard.append(number), once=True)
    peer = raw(top)
    peer.send((TO_PARENTS, ("raw",), event, None, [(number,) for number in range(5)]))
    assert peer.next_acknowledgement() == (1, (4, 0, 0, 0))
    assert read_all(top, peer) is None
    assert heard == [0]
    assert became(peer.link) == (5, 1, (4, 0, 0, 0), {})


@pytest.mark.parametrize("event", ["x", ["x", "x", "x"]], ids=["one name", "a name for each"])
def test_an_event_that_cannot_be_read_is_not_delivered_and_those_beside_it_are(places, raw, event):
    top = places("top").hear_errors().listen("x")
    peer = raw(top)
    peer.send((TO_PARENTS, ("raw",), event, None, [(1,), b"no pickle", (3,)]))
    assert peer.next_acknowledgement() == (1, (0, 1, 0, 0))
    assert read_all(top, peer) is None
    assert [top.next()[1] for _ in range(2)] == [(1,), (3,)]
    assert isinstance(top.next_error(), UnreadablePayload)
    assert became(peer.link) == (3, 2, (0, 1, 0, 0), {})


def test_a_peer_whose_events_cannot_be_read_does_not_feed_the_listeners_of_error_with_each(places, raw):
    """The first one is told at once, all are counted, and no more than one of a kind waits to be told."""
    top, begun, go = places("top").hear_errors().listen("x", "y"), threading.Event(), threading.Event()
    top.node.events.notify(lambda: (begun.set(), go.wait(CEILING)))
    assert begun.wait(CEILING)
    peer = raw(top)
    for _ in range(20):
        peer.send(*((TO_PARENTS, ("raw",), event, None, [b"no pickle"] * 50) for event in ("x", "y")))
    assert read_all(top, peer) is None
    assert became(peer.link) == (2000, 0, (0, 2000, 0, 0), {})
    waiting = top.node.notices._queue.qsize()
    go.set()
    assert waiting == 2
    told = [str(top.next_error()) for _ in range(2)]
    assert [text[:20] for text in told] == ["event 'x' from raw: ", "event 'y' from raw: "]
    assert all(text.endswith(" (999 more of this kind were not told)") for text in told)


def explode(values):
    """In place of unpickling: note a value that only this frame has, and fail."""
    value = numpy.zeros(1)
    values.append(weakref.ref(value))
    raise ValueError("no number")


def test_an_error_that_waits_to_be_told_keeps_no_payload(places, raw, monkeypatch):
    values = []
    top, begun, go = places("top").hear_errors().listen("x"), threading.Event(), threading.Event()
    monkeypatch.setattr(forms.pickle, "loads", lambda data, **_: explode(values))
    top.node.events.notify(lambda: (begun.set(), go.wait(CEILING)))
    assert begun.wait(CEILING)
    peer = raw(top)
    peer.send((TO_PARENTS, ("raw",), "x", None, [b"a pickle"]))
    assert read_all(top, peer) is None
    assert [value() for value in values] == [None]
    go.set()
    assert "ValueError" in str(top.next_error())


def test_an_event_whose_buffers_find_no_memory_is_received_and_unreadable(places, raw):
    top = places("top").hear_errors().listen("x")
    peer = raw(top)
    record = (TO_PARENTS, ("raw",), "x", None, [[b"meta", [8]]])
    top.node.incoming.receive(peer.link, [record], LOST)
    assert isinstance(top.next_error(), UnreadablePayload)
    assert became(peer.link) == (1, 0, (0, 1, 0, 0), {})


def test_what_a_listener_raises_is_no_matter_of_the_books(places, raw):
    top = places("top").hear_errors().on("x", lambda message, number: 1 / 0)
    peer = raw(top)
    peer.send((TO_PARENTS, ("raw",), "x", None, [(1,), (2,)]))
    assert peer.next_acknowledgement() == (1, (0, 0, 0, 0))
    assert became(peer.link) == (2, 2, (0, 0, 0, 0), {})


def test_several_listeners_of_an_event_are_one_delivery(places, raw):
    top = places("top").listen("x").listen("x")
    peer = raw(top)
    peer.send((TO_PARENTS, ("raw",), "x", None, [(1,), (2,)]))
    assert read_all(top, peer) is None
    assert top.heard.qsize() == 4
    assert became(peer.link) == (2, 2, (0, 0, 0, 0), {})


THIRD = {  # a record that cannot be, and how many events it seems to have
    "another origin": ((TO_PARENTS, ("forged",), "x", None, [(4,), (5,)]), 2),
    "a reserved event": ((TO_PARENTS, ("raw",), "online", None, [(4,)]), 1),
    "a kind that is a float": ((1.0, ("raw",), "x", None, [(4,), (5,), (6,)]), 3),
    "messages that are a text": ((TO_PARENTS, ("raw",), "x", None, "text"), 4),
    "more messages than events": ((TO_PARENTS, ("raw",), ["x"], None, [(4,), (5,)]), 2),
    "a reserved event among others": ((TO_PARENTS, ("raw",), ["x", "offline"], None, [(4,), (5,)]), 2),
    "messages that are none": ((TO_PARENTS, ("raw",), "x", None, None), 0),
    "too few items": ((TO_PARENTS, ("raw",), "x"), 0),
    "interest in a number": ((INTEREST, 5, True), 0),
}


@pytest.mark.parametrize("name", THIRD)
def test_what_comes_before_a_record_that_cannot_be_is_counted_as_it_became_and_nothing_after_it(
    places, raw, name
):
    top = places("top").listen("x")
    peer = raw(top)
    record, count = THIRD[name]
    peer.send(
        (TO_PARENTS, ("raw",), "x", None, [(1,), (2,)]),
        (TO_PARENTS, ("raw",), "nobody listens", None, [(3,)]),
        record,
        (TO_PARENTS, ("raw",), "x", None, [(9,)]),
    )
    assert isinstance(top.next_closed()[1], ProtocolError)
    assert top.heard.qsize() == 2
    causes = {"malformed": count} if count else {}
    assert became(peer.link) == (3 + count, 2, (1, 0, 0, count), causes)
    assert peer.link.dropped == {}


def test_a_fault_in_handling_a_frame_is_counted_with_it(places, raw, monkeypatch):
    top = places("top").listen("x")
    peer = raw(top)

    def fails(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(top.node.incoming, "_deliver", fails)
    peer.send((TO_PARENTS, ("raw",), "x", None, [(1,), (2,)]))
    assert top.next_closed()[0] == "raw"
    assert became(peer.link) == (2, 0, (0, 0, 0, 2), {"malformed": 2})


def online(top, peer, *wanted):
    """A peer that is online and wants these events."""
    arrived = threading.Event()
    top.on("online", lambda message: arrived.set())
    peer.send((INTERESTS, wanted), (ONLINE, (peer.pid,)))
    assert arrived.wait(CEILING)


def test_what_is_for_others_and_nobody_wants_ends_here(places, raw):
    top = places("top").listen("x")
    one, other = raw(top, "one"), raw(top, "other")
    online(top, other, "y")
    one.send((TO_SIBLINGS, ("one",), "x", None, [(1,), (2,)]))
    assert one.next_acknowledgement() == (1, (0, 0, 0, 2))
    assert read_all(top, one) is None
    assert became(one.link) == (2, 0, (0, 0, 0, 2), {"filtered": 2})
    assert (other.link.forwarded, other.link.dropped, top.heard.empty()) == (0, {}, True)


def test_of_several_events_for_others_those_go_on_that_somebody_wants(places, raw):
    top = places("top").listen("a")
    one, other = raw(top, "one"), raw(top, "other")
    online(top, other, "b")
    one.send((TO_SIBLINGS, ("one",), *SEVERAL))
    assert other.next_event() == ("b", [b"2", (3,)])
    assert one.next_acknowledgement() == (1, (0, 0, 2, 3))
    assert read_all(top, one) is None
    assert became(one.link) == (5, 0, (0, 0, 2, 3), {"filtered": 3})
    assert (other.link.forwarded, top.heard.empty()) == (2, True)


def test_what_is_delivered_here_and_passed_on_as_well_is_delivered(places, raw):
    top = places("top").listen("x")
    one, other = raw(top, "one"), raw(top, "other")
    one.send((BROADCAST, ("one",), "x", None, [(1,), (2,)]))
    assert other.next_event() == ("x", [(1,), (2,)])
    assert read_all(top, one) is None
    assert became(one.link) == (2, 2, (0, 0, 0, 0), {})
    assert other.link.forwarded == 2


def test_what_goes_to_a_link_that_takes_nothing_is_forwarded_and_dropped_there(places, raw):
    top = places("top")
    one, other = raw(top, "one"), raw(top, "other", limit=100)
    one.send((SEND_TO, ("one",), "x", ("other", ("other",)), [(1,), (b"x" * 200,)]))
    assert read_all(top, one) is None
    assert became(one.link) == (2, 0, (0, 0, 2, 0), {})
    assert (other.link.forwarded, other.link.dropped) == (2, {"too-large": 2})


def test_a_route_that_ends_here_is_undeliverable(places, raw):
    top = places("top")
    one = raw(top, "one")
    one.send((SEND_TO, ("one",), "x", ("far", ("far", "nobody")), [(1,), (2,)]))
    assert one.next_acknowledgement() == (1, (0, 0, 0, 2))
    assert read_all(top, one) is None
    assert became(one.link) == (2, 0, (0, 0, 0, 2), {"undeliverable": 2})


def test_a_stop_that_ends_a_wait_for_room_is_the_cause_of_what_was_not_done(pair, raw, monkeypatch):
    parent, first, _, link = pair
    peer = raw(parent)
    parent.listen("y")
    waiting = watch_waits(monkeypatch, link)
    peer.send(
        (TO_PARENTS, ("raw",), "y", None, [(1,)]),
        (TO_SIBLINGS, ("raw",), "x", None, [(2,), (3,)]),
        (TO_PARENTS, ("raw",), "y", None, [(4,)]),
    )
    assert waiting.wait(CEILING)
    with parent.node.lock:
        parent.node.stage = Stage.CLOSED
        link.wake_waiters()
    assert read_all(parent, peer) is None
    assert became(peer.link) == (3, 1, (0, 0, 0, 2), {"stopped": 2})
    assert first.heard.empty()


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
    assert (one.link.outcomes, one.link.delivered >= 2) == ((3, 0, 0, 0), True)


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
    assert became(one.link) == (10, 1, (0, 0, 0, 4 + 2 + 3), {"stopped": 4 + 2 + 3})


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
    assert became(one.link) == (4, 2, (0, 0, 0, 2), {"stopped": 2})


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
    assert became(one.link) == (6, 0, (0, 0, 0, 6), {"link-cut": 6})
    assert one.link.dropped == {}
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
    assert ended(child, child.node.router.parent) == child.node.router.parent.dropped == {}


def holding(places, raw):
    """A process that holds what comes for it, and its parent, who has a socket only."""
    child = places("child").listen("a")
    child.node.incoming.holding = True
    return child, raw(child, "top", above=True)


def from_top(*events):
    return (TO_CHILDS, ("top",), list(events), None, [(number,) for number in range(len(events))])


def test_what_was_held_becomes_what_it_becomes_when_it_is_released_and_is_acknowledged_then(places, raw):
    child, top = holding(places, raw)
    child.hear_errors()
    top.send(from_top("a", "b", "a"))
    top.send((TO_CHILDS, ("top",), "a", None, [b"no pickle"]))
    wait_until(lambda: child.node.incoming.held.count == 4)
    assert (top.link.received, top.link.delivered, top.link.outcomes) == (4, 0, (0, 0, 0, 0))
    assert not top.link.handled.is_unsaid
    child.node.announced = True
    top.send((PARENT, "top"))
    assert top.next_acknowledgement() == (3, (1, 1, 0, 0))
    assert isinstance(child.next_error(), UnreadablePayload)
    assert became(top.link) == (4, 2, (1, 1, 0, 0), {})


def test_what_was_held_and_dropped_is_received_and_dropped_and_never_acknowledged(places, raw):
    child, top = holding(places, raw)
    top.send(from_top("a", "b", "a"))
    wait_until(lambda: child.node.incoming.held.count == 3)
    child.node.incoming.drop_held()
    assert ended(child, top.link) == {"stopped": 3}
    top.send(from_top("a", "b"))
    assert read_all(child, top) is None
    assert ended(child, top.link) == {"stopped": 5}
    with child.node.lock:
        counters = top.link.counters()
    assert (counters["", "received"], counters["", "delivered"]) == (5, 0)
    assert counters["receivedAs", "dropped"] == 5
    assert [record for record in top.rest() if record[0] == ACKNOWLEDGED] == []


def test_what_is_held_is_not_malformed_although_a_record_after_it_cannot_be(places, raw):
    child, top = holding(places, raw)
    top.send(from_top("a", "b"), (TO_CHILDS, ("forged",), "a", None, [(1,)]))
    assert isinstance(child.next_closed()[1], ProtocolError)
    assert (top.link.received, top.link.outcomes, top.link.ended_here) == (3, (0, 0, 0, 1), {"malformed": 1})
    child.node.incoming.drop_held()
    assert ended(child, top.link) == {"malformed": 1, "stopped": 2}


def test_whenever_it_is_said_what_was_handled_the_other_end_believes_what_became_of_what_was_held(
    places, raw
):
    """Also in the middle of the frame with which it was released, as a stop does that a listener asks for."""
    child, top = holding(places, raw)
    written = Written()

    def send(*records):
        top.send(*records)
        written.total += count_messages(records)
        written.frames += ((written.total, 0, None),)

    def says(message):
        with child.node.lock:
            top.link.acknowledge()

    child.on("says", says)
    send(from_top("b", "b"))
    wait_until(lambda: child.node.incoming.held.count == 2)
    child.node.announced = True
    send((PARENT, "top"), (TO_CHILDS, ("top",), "says", None, [()]))
    became = NONE
    while written.acknowledged < written.last:
        became = plus(became, written.acknowledge(*top.next_acknowledgement())[1])
    assert became == (2, 0, 0, 0)


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
    link = child.node.router.parent
    assert (ended(child, link), link.dropped, incoming.held.count) == ({"stopped": 3}, {}, 0)
    with child.node.lock:
        counters = link.counters()
    assert (counters["", "received"], counters["receivedAs", "dropped"]) == (3, 3)


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
    link = child.node.router.parent
    wait_until(lambda: ended(child, link) == {"stopped": 4})
    assert (incoming.held.count, link.received, link.delivered) == (0, 4, 0)


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
    "an offline of another": (OFFLINE, ("other",), ("x",), None),
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


def test_the_name_of_a_peer_that_breaks_the_rules_forges_no_line(places, raw):
    top = places("top")
    raw(top, "raw\n! all is well").send((TO_PARENTS, ("x\ny",), "x", None, [()]))
    assert str(top.next_closed()[1]).startswith(r"raw\n! all is well sent what makes no sense")


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
    with contextlib.suppress(ConnectionError):  # the first one may have ended the connection
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
