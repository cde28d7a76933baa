"""Silence: a living peer that does not read keeps its connection, and a dead one loses it."""

from __future__ import annotations

import fcntl
import math
import signal
import socket
import sys
import termios
import threading

import pytest
from cables import cut, mend
from proxies import Proxy
from scripts import running, wait_until

from ipevents import SilentPeer
from ipevents._transport.silence import on_its_way

CEILING = 60.0
DEAD_AFTER = 1000  # milliseconds; the shortest that counts
HELD_SECONDS = 3.5


class Held:
    """A listener that takes three times as long as a peer may be silent, once, by a timer."""

    def __init__(self, recorder, event):
        self.begun = threading.Event()
        self.over = threading.Event()
        self.timer = threading.Timer(HELD_SECONDS, self.over.set)
        recorder.emitter.on(event, self.hear)

    def hear(self, message, *args):
        if not self.begun.is_set():
            self.timer.start()
            self.begun.set()
        assert self.over.wait(CEILING)

    def join(self):
        assert self.begun.wait(CEILING)
        self.timer.join()


FLOODS = [  # bytes of an event, and how many; of the first more than the kernel takes
    pytest.param(1_000_000, 20, id="large"),
    pytest.param(10_000, 150, id="middle"),
    pytest.param(100, 50_000, id="small", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("size", "count"), FLOODS)
@pytest.mark.parametrize("who", ["server", "client"])
def test_a_listener_that_takes_long_under_a_flood_loses_no_connection(recorders, port, who, size, count):
    server = recorders("data", port=port, deadAfter=DEAD_AFTER).start()
    client = recorders("data", port=port, deadAfter=DEAD_AFTER).joined()
    sender, receiver = (client, server) if who == "server" else (server, client)
    held = Held(receiver, "data")
    to = [receiver.pid]
    for number in range(count):
        sender.emitter.sendTo(to, "data", number, bytes(size))
    receiver.wait("data", count=count)
    held.join()
    assert receiver.args("data") == list(range(count))
    for each in (server, client):
        assert (each.of("offline"), each.of("error")) == ([], [])


def unread(sock):
    """How many bytes the kernel has for the reader of a socket."""
    found = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


# A dead peer: a cable that is cut. (Filters drop what comes to both ends, see cables.py.)

linux = pytest.mark.skipif(sys.platform != "linux", reason="no such filters")


@pytest.fixture
def wired(recorders, port):
    """A server and its client, and the sockets of the connection between them."""

    def make(**options):
        server = recorders("up", port=port, deadAfter=DEAD_AFTER, **options).start()
        client = recorders("down", port=port, onlyConnect=True, deadAfter=DEAD_AFTER, **options).joined()
        return server, client, [link_of(each).stream.socket for each in (server, client)]

    return make


def link_of(recorder):
    router = recorder.emitter._node.router
    return next(iter(router.neighbours))


def reasons(recorder):
    return [type(message.args[0]) for message in recorder.of("error")]


@linux
@pytest.mark.parametrize("size", [10_000, 5_000_000])
def test_a_sender_that_does_not_hear_of_room_goes_on_before_its_frame_counts_as_stopped(wired, size):
    """It would ask again only after as long as there was no room, which is longer than ``deadAfter``.

    But an acknowledgement follows on the frame that was handled, tells of the room as well, and is sent by
    the kernel until it arrives.
    """
    server, client, ends = wired()
    gate, count = threading.Event(), 20_000_000 // size
    server.emitter.on("up", lambda message, number, filling: gate.wait(CEILING))
    for number in range(count):
        client.emitter.sendToParents("up", number, bytes(size))
    server.wait("up")
    receiver, sender = ends

    def has_no_room():
        found = on_its_way(sender)
        return found.unsent and not found.in_flight and found.since_sent > HELD_SECONDS

    wait_until(has_no_room)
    cut(sender)
    gate.set()
    wait_until(lambda: not unread(receiver))
    mend(sender)
    server.wait("up", count=count)
    for each in (server, client):
        assert (each.of("offline"), each.of("error")) == ([], [])


def assert_noticed(server, client):
    """Both have heard of the end. The one that notices it first may be back before the other one does."""
    for each in (server, client):
        each.wait("offline")  # an error is told before that
    assert {*reasons(server), *reasons(client)} == {SilentPeer}


def assert_goes_on(server, client, up, down):
    """The session has gone on: all that was sent has come, once and in order."""
    client.emitter.sendToParents("up", "end")
    server.emitter.sendToChilds("down", "end")
    server.wait("up", count=up + 1)
    client.wait("down", count=down + 1)
    assert server.args("up") == [*range(up), "end"]
    assert client.args("down") == [*range(down), "end"]
    for each in (server, client):
        (link,) = each.emitter.stats()["links"].values()
        assert link["dropped"] == {}


@linux
def test_a_cable_that_is_cut_while_nothing_is_on_its_way_is_noticed_at_both_ends(wired):
    """B5: a connection of which only half is left ends."""
    server, client, ends = wired()
    cut(*ends)
    assert_noticed(server, client)
    client.wait("parent", count=2)
    assert_goes_on(server, client, 0, 0)


@linux
@pytest.mark.parametrize(("size", "count"), [(10, 5), (1_000_000, 20)], ids=["little", "much"])
def test_a_cable_that_is_cut_while_something_is_on_its_way_is_noticed_and_nothing_is_lost(wired, size, count):
    """Where it is much, both writers are blocked."""
    server, client, ends = wired()
    client.emitter.sendToParents("up", 0)
    server.wait("up")
    cut(*ends)
    for number in range(1, count):
        client.emitter.sendToParents("up", number, bytes(size))
    for number in range(count):
        server.emitter.sendToChilds("down", number, bytes(size))
    assert_noticed(server, client)
    client.wait("parent", count=2)
    assert_goes_on(server, client, count, count)


@linux
@pytest.mark.parametrize("count", [1, 20], ids=["it has written all", "it is blocked"])
def test_a_peer_that_does_not_read_and_then_is_dead_is_noticed(wired, count):
    """B6: a blocked write does not keep a dead peer alive."""
    server, client, ends = wired()
    gate = threading.Event()
    server.emitter.on("up", lambda message, number, *data: gate.wait(CEILING))
    client.emitter.sendToParents("up", 0)
    server.wait("up")  # and its reader is in the listener
    for number in range(1, count + 1):
        client.emitter.sendToParents("up", number, bytes(1_000_000))
    sock = ends[1]
    wait_until(lambda: (found := on_its_way(sock)).unsent and not found.in_flight)
    cut(*ends)
    client.wait("offline")
    assert reasons(client) == [SilentPeer]
    gate.set()
    client.wait("parent", count=2)
    assert_goes_on(server, client, count + 1, 0)


@linux
def test_an_outage_that_is_shorter_than_that_is_none(wired):
    server, client, ends = wired()
    cut(*ends)
    for number in range(100):
        client.emitter.sendToParents("up", number)
        server.emitter.sendToChilds("down", number)
    wait_until(lambda: on_its_way(ends[0]).since_acknowledged > 0.4)
    mend(*ends)
    assert_goes_on(server, client, 100, 100)
    for each in (server, client):
        assert (each.of("offline"), each.of("error")) == ([], [])


@linux
def test_a_tree_that_stood_still_for_longer_than_a_peer_may_be_silent_goes_on_as_it_was(recorders, port):
    """B19: its machine was suspended; no child counts as dead, and nothing is lost."""
    options = {"host": "127.0.0.1", "port": port, "deadAfter": DEAD_AFTER, "authkey": "a key for this test"}

    text = f"""
    ipem.options(useSocket=True, socket={options})

    def work():
        ipem.on("ask", lambda message: message.reply("answer", ipem.pid))

    ipem.on("online", lambda message: say("online") if message.from_ != ipem.pid else None)
    ipem.on("books", lambda message: message.reply("counts", ipem.stats()["restarts"], ipem.childsOnline))
    ipem.start()
    child = ipem.worker(work)
    say("child", child.pid)
    ipem.run()
    """
    with running(text) as script:
        script.wait_line("online")
        client = recorders("answer", "counts", onlyConnect=True, **options).joined()
        pid = script.word("child")
        client.emitter.sendTo([pid, client.emitter.parentPid], "ask")
        client.wait("answer")
        script.signal_group(signal.SIGSTOP)
        client.emitter.sendTo([pid, client.emitter.parentPid], "ask")
        with pytest.raises(TimeoutError):
            client.emitter.waitFor("offline", timeout=2.5 * DEAD_AFTER / 1000)
        script.signal_group(signal.SIGCONT)
        client.wait("answer", count=2)
        client.emitter.sendToGrandMaster("books")
        client.wait("counts")
        assert client.args("answer") == [pid, pid]
        assert client.of("counts")[0].args == (0, 2)
        assert (client.of("error"), client.of("offline")) == ([], [])
        client.emitter.stop()
        script.signal(signal.SIGTERM)
        script.ended()


@linux
def test_where_a_peer_may_be_silent_for_ever_nothing_is_asked(recorders, port):
    server = recorders(port=port, deadAfter=0).start()
    client = recorders(port=port, deadAfter=0).joined()
    for each in (server, client):
        stream = link_of(each).stream
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert (stream.dead_after, stream.look_at) == (0.0, math.inf)


# A frame that does not go on


@pytest.mark.parametrize("size", [1000, 3_000_000], ids=["frame", "buffers"])
@pytest.mark.parametrize("who", ["server", "client"])
def test_a_peer_that_stops_in_the_middle_of_a_frame_loses_the_connection_and_nothing_else(
    recorders, port, second_port, who, size
):
    """B1: what follows a part of a frame may be silence."""
    options = {"deadAfter": DEAD_AFTER, "forwarded": True}
    server = recorders("up", port=port, **options).start()
    with Proxy(second_port, port) as proxy:
        client = recorders("down", port=second_port, onlyConnect=True, **options).joined()
        reader = server if who == "server" else client
        wait_until(lambda: all(is_at_rest(each.emitter.stats()) for each in (server, client)))
        proxy.hold_after(size // 2)
        if who == "server":
            client.emitter.sendToParents("up", 0, bytes(size))
        else:
            server.emitter.sendToChilds("down", 0, bytes(size))
        reader.wait("offline")
        assert reasons(reader) == [SilentPeer]
        assert "middle of a frame" in str(reader.args("error")[0])
        client.wait("parent", count=2)
        assert_goes_on(server, client, who == "server", who == "client")
        client.emitter.stop()


def is_at_rest(stats):
    return not any(link["queued"] or link["unacknowledged"] for link in stats["links"].values())
