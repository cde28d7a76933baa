"""Nodes joined by real links in one process; what starts and ends processes is left out."""

from __future__ import annotations

import collections
import itertools
import queue
import socket
import threading
import time
from multiprocessing.connection import Connection

from watched import WatchedLink

from ipevents._ask.asking import Asking
from ipevents._ask.calls import ask, ask_async, gather
from ipevents._ask.target import Target
from ipevents._core import wire
from ipevents._core.link_state import Right
from ipevents._core.messages import (
    ACKNOWLEDGED,
    LAST_EVENT,
    LAST_MESSAGE,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    SEND_TO,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._dispatch.floor import Floor
from ipevents._dispatch.notices import Notices
from ipevents._node.node import Node
from ipevents._platform.threads import Deadline
from ipevents._transport.stream import Stream

CEILING = 20.0  # reached only in a deadlock
BY_JAMS = {(Right.FREE, Right.WRITING)}  # a step that jam() takes and the library does not
JAMMED = -2  # as the owner of the right to write: no thread that exists
FULL = 5


class Place:
    """A node with its links, and what its listeners heard."""

    def __init__(self, pid):
        self.pid = pid
        self.node = Node(
            pid,
            reply=lambda *reply: self.node.outgoing.send_route(*reply),
            on_first_use=lambda: None,
            on_exit=lambda exc: self.exits.append(exc),
            floor=Floor(),  # each stands for a process
        )
        self.node.asks = Asking(self.node, lambda: None)
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

    # Asking

    @property
    def asks(self):
        return self.node.asks

    def answer(self, event, function, threads=0):
        self.asks.answering.add(event, function, threads)
        return self

    def ask(self, route, event, *args, timeout=None, **kwargs):
        """Ask one process, and return the value; ``route`` as for sendTo."""
        return ask(self.asks, Target(route=tuple(route)), event, args, kwargs, timeout)

    def ask_async(self, route, event, *args, timeout=None, **kwargs):
        return ask_async(self.asks, Target(route=tuple(route)), event, args, kwargs, timeout)

    def ask_top(self, event, *args):
        return ask(self.asks, Target(REQUEST_GRAND_MASTER), event, args, {}, None)

    def ask_all(self, event, *args, timeout=None):
        return gather(self.asks, Target(REQUEST_ALL), event, args, {}, timeout)

    def ask_any(self, event, *args, timeout=None, retry=0, **kwargs):
        target = Target(REQUEST_ANY, retries=retry)
        return ask(self.asks, target, event, args, kwargs, timeout)

    def ask_any_async(self, event, *args, timeout=None, retry=0, **kwargs):
        target = Target(REQUEST_ANY, retries=retry)
        return ask_async(self.asks, target, event, args, kwargs, timeout)

    def look_at_deadlines(self):
        """As the supervisor does when it wakes."""
        with self.node.lock:
            due = self.node.timers.take(time.monotonic() + CEILING)
        for call in due:
            call()

    # Links

    def link_to(self, peer):
        (link,) = [link for link in self.links if link.name == peer.pid]
        return link

    def make_link(self, name):
        link = WatchedLink(name, self.node.lock, self.node.incoming.receive, self._link_closed)
        link.on_control = self.controls.append
        self.links.append(link)
        return link

    def make_child(self, pid, *, is_quiet=False):
        """A link without a connection to a child that has yet to say ``online``."""
        link = self.make_link(pid)
        with self.node.lock:
            self.node.router.add_child(link, pid, is_quiet=is_quiet)
        return link

    def make_parent(self, pid, up=Up.OPEN):
        """A link without a connection to a parent."""
        link = self.make_link(pid)
        with self.node.lock:
            self.node.router.set_parent(link, pid, up)
        return link

    def _link_closed(self, link, error):
        node = self.node
        with node.lock:
            node.asks.link_gone(link)
            if link is not node.router.parent and link in node.router.neighbours:
                _, notices = node.presence.child_gone(link, None)
                node.events.tell_offlines(notices)
        self.closed.put((link.name, error))

    def next_closed(self):
        return self.closed.get(timeout=CEILING)

    def end(self):
        self.asks.end_all()
        self.asks.answering.begin_stop()
        self.asks.answering.finish(Deadline(CEILING))
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
            assert link.refused - BY_JAMS == set(), link.refused


def attach(link, sock, limit=None):
    with link._lock:
        link.attach(Stream(Connection(sock.detach()), limit))


def join(parent, child, limit=None, online=True, is_quiet=False):
    """Make ``child`` a child of ``parent``; with ``online`` returns when that is known."""
    ours, theirs = socket.socketpair()
    down, up = parent.make_link(child.pid), child.make_link(parent.pid)
    with parent.node.lock:
        parent.node.router.add_child(down, child.pid, is_quiet=is_quiet)
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
    """A child of a place, or its parent, that is only a socket, for bytes that no node would send."""

    def __init__(self, place, pid="raw", limit=None, attached=True, *, above=False):
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(CEILING)
        self.pid = pid
        self.link = place.make_parent(pid) if above else place.make_child(pid)
        self._ours = ours
        self._limit = limit
        self._data = b""
        self._requests = collections.deque()  # that came in a frame with others
        self._controls = []
        self._payloads = collections.deque()  # that came in a record with others
        if attached:
            self.attach()

    def attach(self):
        attach(self.link, self._ours, self._limit)

    def send(self, *records):
        frame = wire.encode(list(records))
        self.socket.sendall(wire.frame_header(len(frame)) + frame)

    def next_records(self):
        records = self._next_or_none()
        assert records is not None, "the connection ended"
        return records

    def rest(self):
        """All records that come until the connection ends."""
        found = []
        while (records := self._next_or_none()) is not None:
            found += records
        return found

    def _next_or_none(self):
        while True:
            if len(self._data) >= 4:
                size = wire.frame_size(self._data, 0, 1 << 30)
                if len(self._data) >= 4 + size:
                    frame, self._data = self._data[4 : 4 + size], self._data[4 + size :]
                    return wire.decode(frame)
            data = self.socket.recv(1 << 20)
            if not data:
                return None
            self._data += data

    def next_acknowledgement(self):
        """The number of the next one, and the outcomes."""
        while True:
            for record in self.next_records():
                if record[0] == ACKNOWLEDGED:
                    return tuple(record[1:])

    def next_event(self):
        """The next message record: its event and payloads."""
        while True:
            for record in self.next_records():
                if record[0] <= SEND_TO:
                    return record[2], record[4]

    def next_request(self):
        """The next record of requests or answers: its kind, event, rest of the route and payloads."""
        while not self._requests:
            self._sort_next()
        record = self._requests.popleft()
        return record[0], record[2], record[3], record[4]

    def wait_for(self, record):
        """Wait until this control record comes."""
        while record not in self._controls:
            self._sort_next()
        self._controls.remove(record)

    def _sort_next(self):
        for record in self.next_records():
            if LAST_EVENT < record[0] <= LAST_MESSAGE:
                self._requests.append(record)
            elif record[0] > LAST_MESSAGE:
                self._controls.append(record)

    def next_payload(self):
        """The kind and the payload of the next request or answer; a record may have several."""
        while not self._payloads:
            kind, _, _, payloads = self.next_request()
            self._payloads += [(kind, payload) for payload in payloads]
        return self._payloads.popleft()


def queued(place, link):
    """The records that wait in a link, in order."""
    with place.node.lock:
        return list(link.outbox._all())


def settle(*line):
    """Until everything that is on its way between these neighbours has arrived, both ways."""
    for _ in range(2):
        for one, other in [*itertools.pairwise(line), *itertools.pairwise(line[::-1])]:
            arrived = threading.Event()
            other.on("mark", lambda message, arrived=arrived: arrived.set())
            one.send_to([other.pid], "mark")
            assert arrived.wait(CEILING)


def jam(place, link):
    """Nothing is taken out of this outbox any more. No acknowledgement of what came so far is put into it."""
    while True:
        with place.node.lock:
            if link._right is Right.FREE and not link.outbox.count:
                link.handled.say()
                link.handled.due = 0.0
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


def expect_old(place):
    for number in range(FULL):
        assert place.next()[:2] == ("old", (number,))


def inside(place, call):
    """Run a call as if it came from a signal handler or a destructor while the state lock is held."""
    node = place.node
    with node.lock:
        call()
        assert node.inside()
