"""Two or three nodes joined by real links in one process; what starts and ends processes is left out."""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection

import numpy
import pytest
from scripts import wait_until
from watched import WatchedLink

from ipevents import Emitter
from ipevents._core import outbox, wire
from ipevents._core.link_state import Right
from ipevents._core.messages import (
    BROADCAST,
    INTEREST,
    INTERESTS,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    REPORT,
    RESERVED_EVENTS,
    SEND_TO,
    TO_CHILD,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._dispatch.floor import Floor
from ipevents._dispatch.notices import Notices
from ipevents._exceptions import (
    Closed,
    MessageTooLarge,
    NotConnected,
    OutboxFull,
    ProtocolError,
    SlowPeer,
    Undeliverable,
    UnknownProcess,
    UnreadablePayload,
)
from ipevents._links import outlet as outlet_module
from ipevents._links.link import Link
from ipevents._node import backpressure
from ipevents._node.node import Node
from ipevents._payload import forms
from ipevents._platform.threads import Deadline, start_thread
from ipevents._transport.stream import Stream

CEILING = 20.0  # reached only in a deadlock
BY_JAMS = {(Right.FREE, Right.WRITING)}  # a step that jam() takes and the library does not
JAMMED = -2  # as the owner of the right to write: no thread that exists


class Place:
    """A node with its links, and what its listeners heard."""

    def __init__(self, pid):
        self.pid = pid
        self.node = Node(
            pid,
            reply=lambda *reply: self.node.outgoing.send_route(*reply),
            on_control=lambda link, record: self.controls.append(record),
            on_first_use=lambda: None,
            on_exit=lambda exc: self.exits.append(exc),
            floor=Floor(),  # each stands for a process
        )
        self.node.notices = Notices(pid)
        self.node.stage = Stage.OPEN
        self.heard = queue.Queue()
        self.errors = queue.Queue()
        self.closed = queue.Queue()
        self.controls = []
        self.exits = []
        self.links = []

    # Listening

    def listen(self, *events):
        for event in events:
            self.node.dispatcher.add(
                event, lambda message, *args: self.heard.put((message.event, args, message.pids))
            )
        return self

    def on(self, event, listener):
        self.node.dispatcher.add(event, listener)
        return self

    def hear_errors(self):
        self.node.dispatcher.add("error", lambda message, exc: self.errors.put(exc))
        return self

    def next(self):
        return self.heard.get(timeout=CEILING)

    def next_error(self):
        return self.errors.get(timeout=CEILING)

    # Sending

    def send(self, kind, event, *args):
        self.node.outgoing.send(kind, event, args, {})

    def send_to(self, route, event, *args):
        self.node.outgoing.send_route(tuple(route), event, args, {})

    def send_child(self, pid, event, *args):
        self.node.outgoing.send_child(pid, event, args, {})

    # Links

    def link_to(self, peer):
        (link,) = [link for link in self.links if link.name == peer.pid]
        return link

    def make_link(self, name):
        link = WatchedLink(name, self.node.lock, self.node.incoming.receive, self._link_closed)
        self.links.append(link)
        return link

    def _link_closed(self, link, error):
        node = self.node
        with node.lock:
            if link is not node.router.parent and link in node.router.neighbours:
                _, notices = node.presence.child_gone(link, None)
                node.events.tell_offlines(notices)
        self.closed.put((link.name, error))

    def next_closed(self):
        return self.closed.get(timeout=CEILING)

    def end(self):
        with self.node.lock:
            self.node.stage = Stage.CLOSED
            for link in self.links:
                if link._owner == JAMMED and link._right is Right.WRITING:
                    link._right = Right.FREE
                link.wake_waiters()
                link.end()
        assert [link for link in self.links if not link.join(Deadline(CEILING))] == [], (
            "a thread of a link does not end"
        )
        assert self.node.notices.close(Deadline(CEILING))
        for link in self.links:
            assert link.refused - BY_JAMS == set()


@pytest.fixture
def places():
    made = []

    def make(pid):
        made.append(Place(pid))
        return made[-1]

    yield make
    for place in made:
        place.end()


def attach(link, sock, limit=None):
    with link._lock:
        link.attach(Stream(Connection(sock.detach()), limit))


def join(parent, child, limit=None, online=True):
    """Make ``child`` a child of ``parent``; with ``online`` returns when that is known."""
    ours, theirs = socket.socketpair()
    down, up = parent.make_link(child.pid), child.make_link(parent.pid)
    with parent.node.lock:
        parent.node.router.add_child(down, child.pid)
    with child.node.lock:
        child.node.router.set_parent(up, parent.pid, Up.OPEN)
    parent_said = threading.Event()
    child.on("parent", lambda message, pid: parent_said.set())
    attach(down, ours, limit)
    attach(up, theirs, limit)
    if online:
        with child.node.lock:
            child.node.presence.announce()
        assert parent_said.wait(CEILING)
    return down, up


class Raw:
    """A child of a place that is only a socket, for bytes that no node would send."""

    def __init__(self, parent, pid="raw", limit=None, attached=True):
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(CEILING)
        self.pid = pid
        self.link = parent.make_link(pid)
        with parent.node.lock:
            parent.node.router.add_child(self.link, pid)
        self._ours = ours
        self._limit = limit
        self._data = b""
        if attached:
            self.attach()

    def attach(self):
        attach(self.link, self._ours, self._limit)

    def send(self, *records):
        frame = wire.encode(list(records))
        self.socket.sendall(wire.frame_header(len(frame)) + frame)

    def next_records(self):
        while True:
            if len(self._data) >= 4:
                size = wire.frame_size(self._data, 0, 1 << 30)
                if len(self._data) >= 4 + size:
                    frame, self._data = self._data[4 : 4 + size], self._data[4 + size :]
                    return wire.decode(frame)
            data = self.socket.recv(1 << 20)
            assert data, "the connection ended"
            self._data += data

    def next_event(self):
        """The next message record: its event and payloads."""
        while True:
            for record in self.next_records():
                if record[0] <= SEND_TO:
                    return record[2], record[4]


@pytest.fixture
def raw(places):
    made = []

    def make(*args, **kwargs):
        made.append(Raw(*args, **kwargs))
        return made[-1]

    yield make
    for item in made:
        item.socket.close()
        item._ours.close()


def settle(*line):
    """Until everything that is on its way between these neighbours has arrived, both ways."""
    for _ in range(2):
        for one, other in [*itertools.pairwise(line), *itertools.pairwise(line[::-1])]:
            arrived = threading.Event()
            other.on("mark", lambda message, arrived=arrived: arrived.set())
            one.send_to([other.pid], "mark")
            assert arrived.wait(CEILING)


# A small tree


@pytest.fixture
def line(places):
    """Three places: top, middle and leaf."""
    top, middle, leaf = places("top"), places("middle"), places("leaf")
    top.node.announced = True
    join(top, middle)
    join(middle, leaf)
    settle(top, middle, leaf)
    return top, middle, leaf


KINDS = [
    # who sends, kind, who hears, with these pids
    ("leaf", TO_PARENTS, {"middle": "leaf middle", "top": "leaf middle top"}),
    ("leaf", TO_GRAND_MASTER, {"top": "leaf middle top"}),
    ("leaf", BROADCAST, {"middle": "leaf middle", "top": "leaf middle top"}),
    ("leaf", TO_SIBLINGS, {}),
    ("leaf", TO_CHILDS, {}),
    ("middle", TO_PARENTS, {"top": "middle top"}),
    ("middle", TO_CHILDS, {"leaf": "middle leaf"}),
    ("middle", BROADCAST, {"top": "middle top", "leaf": "middle leaf"}),
    ("top", TO_CHILDS, {"middle": "top middle", "leaf": "top middle leaf"}),
    ("top", BROADCAST, {"middle": "top middle", "leaf": "top middle leaf"}),
    ("top", TO_GRAND_MASTER, {"top": "top"}),
    ("top", TO_PARENTS, {}),
]


@pytest.mark.parametrize(("sender", "kind", "expected"), KINDS)
def test_each_kind_reaches_the_right_ones(line, sender, kind, expected):
    by_pid = {place.pid: place.listen("x") for place in line}
    settle(*line)
    by_pid[sender].send(kind, "x", 1)
    settle(*line)
    heard = {pid: list(place.heard.queue) for pid, place in by_pid.items() if place.heard.qsize()}
    assert heard == {pid: [("x", (1,), tuple(pids.split()))] for pid, pids in expected.items()}


def test_a_reply_comes_back_over_all_hops(line):
    top, _, leaf = line
    top.on("question", lambda message, value: message.reply("answer", value + 1))
    leaf.listen("answer")
    leaf.send(TO_GRAND_MASTER, "question", 1)
    assert leaf.next() == ("answer", (2,), ("top", "middle", "leaf"))


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


# Flow. Outboxes are full at a few records; a jammed link takes nothing, as if its peer read nothing.

FULL = 5


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(outbox, "OUTBOX_RECORDS", FULL)
    monkeypatch.setattr(outbox, "FRAME_BYTES", 1)


def jam(place, link):
    """Nothing is taken out of this outbox any more."""
    while True:
        with place.node.lock:
            if link._right is Right.FREE and not link.outbox.count:
                link._owner = JAMMED
                link._right = Right.WRITING
                link.attended = True
                link.progress = time.monotonic() + 1000  # it seems to make progress
                return


def free(place, link):
    with place.node.lock:
        link._right = Right.FREE
        link.prompt()


def stall(place, link):
    """It took nothing for longer than a peer may."""
    with place.node.lock:
        link.progress = -1000.0
        link.wake_waiters()


def watch_waits(monkeypatch, link):
    """An event that is set when somebody waits for room in this link."""
    waiting = threading.Event()
    original = link.wait_room

    def wait_room(timeout):
        waiting.set()
        original(timeout)

    monkeypatch.setattr(link, "wait_room", wait_room)
    return waiting


def in_thread(call, *args):
    """Run a call; ``result()`` joins and returns what it raised, or None."""
    raised = []

    def run():
        try:
            call(*args)
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(CEILING)
        assert not thread.is_alive(), "still waits"
        return raised[0] if raised else None

    return result


@pytest.fixture
def pair(places, small):
    """A parent with two children; the link to the first is jammed and full of events "old"."""
    parent, first, second = places("parent"), places("first"), places("second")
    join(parent, first)
    join(parent, second)
    for place in (first, second):
        place.listen("x", "old")
    settle(parent, first)
    settle(parent, second)
    link = parent.link_to(first)
    jam(parent, link)
    for number in range(FULL):
        parent.send_child("first", "old", number)
    assert len(link.outbox) == FULL
    return parent, first, second, link


def expect_old(place):
    for number in range(FULL):
        assert place.next()[:2] == ("old", (number,))


def test_rule_1_an_addressed_send_waits_and_is_woken_by_room(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x", 1)
    assert waiting.wait(CEILING)
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))


def test_rule_1_an_addressed_send_waits_also_for_a_peer_that_takes_nothing(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    stall(parent, link)
    result = in_thread(parent.send_to, ["first"], "x", 1)
    assert waiting.wait(CEILING)
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))
    assert link.dropped == {}


def test_rule_1_a_stop_ends_the_wait(pair, monkeypatch):
    parent, _, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    sent = parent.node.outgoing.sent
    with parent.node.lock:
        parent.node.stage = Stage.STOPPING
        link.wake_waiters()
    assert isinstance(result(), Closed)
    assert parent.node.outgoing.sent == sent


def test_rule_1_the_end_of_the_link_ends_the_wait_and_is_decided_again(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    first.links[0].close_session()
    assert isinstance(result(), UnknownProcess)
    assert link.dropped == {"link-cut": FULL}


def test_rule_1_no_lock_is_held_while_waiting(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    parent.listen("y")
    second.send(TO_PARENTS, "y", 1)
    assert parent.next()[:2] == ("y", (1,))
    parent.send_child("second", "x", 2)
    assert second.next()[:2] == ("x", (2,))
    free(parent, link)
    assert result() is None
    expect_old(first)


@pytest.mark.parametrize("how", ["emit", "link"])
def test_rule_2_a_listener_is_refused_and_nothing_is_sent(pair, how):
    parent, first, second, link = pair
    raised = queue.Queue()

    def listener(message):
        for call in (
            lambda: parent.send_child("first", "x"),
            lambda: parent.send_to(["first"], "x"),
            lambda: parent.send(TO_CHILDS, "x"),
            lambda: parent.send(BROADCAST, "x"),
        ):
            try:
                call()
                raised.put(None)
            except BaseException as exc:
                raised.put(exc)

    parent.on("go", listener)
    sent = parent.node.outgoing.sent
    if how == "emit":
        parent.node.events.emit("go", (), {})
    else:
        second.send(TO_PARENTS, "go")
    assert [type(raised.get(timeout=CEILING)) for _ in range(4)] == [OutboxFull] * 4
    assert parent.node.outgoing.sent == sent
    assert len(link.outbox) == FULL
    free(parent, link)
    expect_old(first)
    settle(parent, second)
    assert second.heard.empty(), "the one who had room got nothing either"


def test_rule_2_code_in_a_library_thread_never_waits_either(pair):
    parent, _, _, _ = pair
    raised = queue.Queue()

    def run():
        for call in (lambda: parent.send_child("first", "x"), lambda: parent.send(TO_CHILDS, "x")):
            try:
                call()
            except OutboxFull as exc:
                raised.put(exc)

    start_thread("test", run).join(CEILING)
    assert raised.qsize() == 2


def test_rule_3_a_fanout_waits_while_the_peer_makes_progress(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    assert second.next()[:2] == ("x", (1,)), "who has room does not wait for the other one"
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))
    assert link.dropped == {}


def test_rule_3_a_fanout_drops_for_a_peer_that_took_nothing_and_says_so_once(pair, monkeypatch):
    parent, first, second, link = pair
    parent.hear_errors()
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    stall(parent, link)
    assert result() is None
    error = parent.next_error()
    assert isinstance(error, SlowPeer)
    assert "first" in str(error)
    for number in range(2, 5):
        parent.send(BROADCAST, "x", number)
    assert [second.next()[1] for _ in range(4)] == [(1,), (2,), (3,), (4,)]
    assert link.dropped == {"slow-peer": 4}
    free(parent, link)
    expect_old(first)
    settle(parent, first)
    assert parent.errors.empty()
    parent.send(BROADCAST, "x", 5)
    assert first.next()[:2] == ("x", (5,)), "half empty: it gets events again"


def test_rule_3_a_fanout_skips_a_link_that_goes_while_it_waits(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    first.links[0].close_session()
    assert result() is None
    assert second.next()[:2] == ("x", (1,))
    assert link.dropped == {"link-cut": FULL + 1}


def test_rule_3_a_reader_that_forwards_waits_while_listeners_run_elsewhere(pair, monkeypatch):
    parent, first, second, link = pair
    parent.listen("y")
    waiting = watch_waits(monkeypatch, link)
    second.send(TO_SIBLINGS, "x", 1)
    assert waiting.wait(CEILING)
    assert not parent.node.dispatcher.floor.owner, "the reader has left the dispatcher"
    parent.node.events.emit("y", (2,), {})
    assert parent.next()[:2] == ("y", (2,))
    free(parent, link)
    expect_old(first)
    assert first.next() == ("x", (1,), ("second", "parent", "first"))


def test_rule_3_a_reader_that_forwards_drops_for_a_peer_that_took_nothing(pair):
    parent, first, second, link = pair
    parent.hear_errors()
    stall(parent, link)
    for number in range(3):
        second.send(TO_SIBLINGS, "x", number)
    assert isinstance(parent.next_error(), SlowPeer)
    settle(parent, second)
    assert link.dropped == {"slow-peer": 3}
    free(parent, link)
    expect_old(first)


def test_rule_3_the_origin_of_an_addressed_message_is_told(pair):
    parent, first, second, link = pair
    second.hear_errors()
    stall(parent, link)
    second.send_to(["first", "parent"], "x")
    error = second.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at) == ("x", "parent")
    free(parent, link)
    expect_old(first)


def test_rule_4_a_forwarder_never_waits_for_the_link_that_it_reads_from(pair, monkeypatch):
    parent, first, _, link = pair
    first.hear_errors()
    parent.listen("y")
    monkeypatch.setattr(outbox, "OUTBOX_RECORDS", 1000)
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", link.outbox.size + 1000)
    first.send_to(["first", "parent"], "x", b"x" * 2000)  # by way of the parent to itself
    first.send(TO_PARENTS, "y", 1)
    assert parent.next()[:2] == ("y", (1,)), "the reader did not wait"
    assert link.dropped == {"full": 1}
    free(parent, link)
    error = first.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at, error.target) == ("x", "parent", "first")
    expect_old(first)


def test_a_full_outbox_still_takes_control_records(pair):
    parent, first, _, link = pair
    with parent.node.lock:
        link.tell((PARENT, "parent"))
        link.outbox.put_interest("z", True)
    assert len(link.outbox) == FULL + 2
    with parent.node.lock:
        link.outbox.take()
        link.outbox.clear()


# Sizes


def test_what_is_too_large_is_refused_at_the_call_and_changes_nothing(places):
    top, client = places("top"), places("client")
    join(top, client, limit=2000)
    client.listen("x")
    settle(top, client)
    sent = top.node.outgoing.sent
    for call in (
        lambda: top.send(BROADCAST, "x", b"x" * 3000),
        lambda: top.send_child("client", "x", b"x" * 3000),
        lambda: top.send_to(["client"], "x", bytes(100_000)),
    ):
        with pytest.raises(MessageTooLarge, match="2000"):
            call()
    assert top.node.outgoing.sent == sent
    top.send(BROADCAST, "x", b"x" * 1500)
    assert client.next()[:2] == ("x", (b"x" * 1500,))


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


def test_what_the_library_has_to_say_after_the_end_is_logged_or_not_said(places, caplog):
    top = places("top").on("x", lambda message: sys.exit(3)).hear_errors().listen("offline")
    top.node.events.emit("x", (), {})
    top.node.error(ValueError("late"))
    top.node.events.notify(lambda: top.node.events.deliver("offline", ("1",)))
    told = threading.Event()
    top.node.events.notify(told.set)
    assert told.wait(CEILING)
    assert (top.errors.empty(), top.heard.empty()) == (True, True)
    assert "late" in caplog.text


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


# Re-entrancy


def inside(place, call):
    """Run a call as if it came from a signal handler or a destructor while the state lock is held."""
    node = place.node
    with node.lock:
        call()
        assert node.inside()


def test_a_send_from_inside_is_queued_and_done_on_leaving(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    def call():
        top.send(BROADCAST, "x", 1)
        top.send_child("middle", "x", 2)
        top.send_to(["middle"], "x", 3)
        assert top.node.outgoing.sent == sent

    sent = top.node.outgoing.sent
    inside(top, call)
    assert [middle.next()[1] for _ in range(3)] == [(1,), (2,), (3,)]


def test_a_signal_handler_may_run_what_is_queued_before_who_was_about_to(line):
    node = line[0].node
    done = []

    class Interrupted(deque):
        """A signal comes whenever it is asked whether something is in it: its handler runs all of it."""

        def __bool__(self):
            there = len(self) > 0
            while len(self):
                self.popleft()[0]()
            return there

    node.lock.deferred[threading.get_ident()] = Interrupted([(lambda: done.append("once"), ())])
    node.lock.run_deferred()
    assert (done, node.lock.deferred) == (["once"], {})


def test_however_much_is_queued_from_inside_runs_one_behind_the_other(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    depths = set()
    top.on("local", lambda message: depths.add(len(inspect.stack(0))))

    def call():
        for number in range(1000):
            top.send(BROADCAST, "x", number)
            top.node.events.emit("local", (), {})

    inside(top, call)
    assert [middle.next()[1] for _ in range(1000)] == [(number,) for number in range(1000)]
    assert len(depths) == 1
    assert top.node.lock.deferred == {}


def test_what_is_queued_from_inside_is_done_also_if_a_handler_raises_while_a_batch_is_written(
    line, monkeypatch
):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    heard = []
    top.on("local", lambda message: heard.append(message.event))
    claim = Link.claim_now

    def interrupted(link):
        monkeypatch.setattr(Link, "claim_now", claim)
        top.node.events.emit("local", (), {})
        raise KeyboardInterrupt

    with top.node.lock:
        top.node.outgoing.mark_dirty(top.link_to(middle))
    monkeypatch.setattr(Link, "claim_now", interrupted)
    with pytest.raises(KeyboardInterrupt):
        top.node.outgoing.write_dirty()
    assert heard == ["local"]
    assert top.node.lock.deferred == {}


def test_an_emit_from_inside_runs_listeners_outside(line):
    top = line[0]
    owned = []
    top.on("x", lambda message: owned.append(top.node.inside()))
    inside(top, lambda: top.node.events.emit("x", (), {}))
    assert owned == [False]


def test_an_emit_from_inside_a_library_thread_runs_in_the_notices_thread(line):
    top = line[0]
    names = queue.Queue()
    top.on("x", lambda message: names.put(threading.current_thread().name))
    start_thread("test", lambda: inside(top, lambda: top.node.events.emit("x", (), {}))).join(CEILING)
    assert names.get(timeout=CEILING) == "ipevents-notices-top"


def test_on_and_off_from_inside_change_the_interest_on_leaving(line):
    top, middle, _ = line
    listener = lambda message: None  # noqa: E731
    inside(middle, lambda: middle.on("x", listener))
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    inside(middle, lambda: middle.node.dispatcher.remove("x", listener))
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


def test_a_mistake_made_inside_is_an_error_event(line):
    top = line[0].hear_errors()
    inside(top, lambda: top.send_child("nobody", "x"))
    assert isinstance(top.next_error(), UnknownProcess)


def test_a_destructor_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    class Sends:
        def __del__(self):
            top.send_child("middle", "x", 1)

    with top.node.lock:
        cycle = [Sends()]
        cycle.append(cycle)
        del cycle
        gc.collect()
    assert middle.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    before = signal.signal(signal.SIGUSR1, lambda *_: top.send_child("middle", "x", 1))
    try:
        with top.node.lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert middle.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_send_while_this_thread_waits_for_room(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    before = signal.signal(signal.SIGUSR1, lambda *_: parent.send_child("second", "x", 2))

    def interrupt():
        assert waiting.wait(CEILING)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert second.next()[:2] == ("x", (2,))
        free(parent, link)

    result = in_thread(interrupt)
    try:
        parent.send_child("first", "x", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))


def test_a_stop_from_inside_does_not_block():
    emitter = Emitter().options(useSocket=False).start()
    with emitter._node.lock:
        emitter.stop()
        assert emitter.stopping
    assert emitter.run(CEILING)


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


def test_an_unknown_control_record_goes_to_who_knows_processes(places, raw):
    top = places("top").listen("x")
    raw(top).send((99, "news"), (TO_PARENTS, ("raw",), "x", None, [()]))
    top.next()
    assert top.controls == [(99, "news")]


def test_a_message_for_a_child_is_delivered_with_its_name(line):
    top, middle, _ = line
    got = queue.Queue()
    middle.on("x", lambda message: got.put((message.type, message.to, message.route)))
    top.send_child("middle", "x")
    top.send_to(["middle"], "x")
    assert got.get(timeout=CEILING) == ("toChild", "middle", None)
    assert got.get(timeout=CEILING) == ("sendTo", "middle", ())
    assert TO_CHILD != SEND_TO


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


def test_the_looks_of_a_wait_are_of_the_design():
    assert backpressure.LOOK_SECONDS == 1.0


# When it is written what listeners send


def _echoing(places, raw, monkeypatch):
    """A place with a raw child, and the links whose writers were asked to look after what listeners sent."""
    top = places("top")
    child = raw(top)
    top.node.announced = True
    looks = []
    monkeypatch.setattr(Link, "defer", lambda link: looks.append(link))
    return top, child, looks


def _frame_of(*numbers):
    return (TO_PARENTS, ("raw",), "x", None, [(number,) for number in numbers])


def test_the_answer_to_a_single_event_is_written_while_the_listener_runs(places, raw, monkeypatch):
    top, child, looks = _echoing(places, raw, monkeypatch)
    answered = threading.Event()

    def listener(message, number):
        message.reply("y", number)
        assert answered.wait(CEILING)

    top.on("x", listener)
    for number in range(3):
        child.send(_frame_of(number))
        assert child.next_event() == ("y", [(number,)])
        answered.set()
    assert looks == []


@pytest.mark.parametrize("frame", [[_frame_of(1, 2)], [_frame_of(1), _frame_of(2)]])
def test_the_answers_to_the_events_of_one_frame_are_written_together(places, raw, monkeypatch, frame):
    top, child, looks = _echoing(places, raw, monkeypatch)
    top.on("x", lambda message, number: message.reply("y", number))
    child.send(*frame)
    assert child.next_event() == ("y", [(1,), (2,)])
    assert looks == [child.link] * 2


def test_a_second_answer_to_a_single_event_waits_for_the_end_of_the_listener(places, raw, monkeypatch):
    top, child, looks = _echoing(places, raw, monkeypatch)
    monkeypatch.setattr(outlet_module, "QUIET_SECONDS", CEILING)  # however long it takes to send three

    def listener(message, number):
        for answer in range(3):
            message.reply("y", answer)

    top.on("x", listener)
    child.send(_frame_of(1))
    assert child.next_event() == ("y", [(0,)])
    assert child.next_event() == ("y", [(1,), (2,)])
    assert looks == [child.link] * 2
