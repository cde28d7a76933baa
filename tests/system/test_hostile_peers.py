"""Peers that hold the key, and send what no process of ours would: their own connection ends, and nothing else."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import socket
import statistics
import threading
import time

import hostile
import pytest

from ipevents import IPEventsError
from ipevents._core.addresses import Address
from ipevents._core.handshake import Identity
from ipevents._core.messages import ONLINE
from ipevents._core.seal import Seals
from ipevents._core.wire import decode, frame_header, is_large
from ipevents._exceptions import ProtocolError
from ipevents._transport.dial import dial
from ipevents._transport.keys import CLIENT, derive

CEILING = 60.0  # reached only in a deadlock
KEY = b"k" * 32
STREAMS = [400, pytest.param(200_000, marks=[pytest.mark.full, pytest.mark.timeout(7200)])]
SHARE = 0.25  # of the streams that announce themselves first, as an honest client does

incarnations = itertools.count(1)


class Peer:
    """A client that shakes hands, and then sends what it likes, with right seals."""

    def __init__(self, port):
        me = Identity("", next(incarnations) | 1 << 50, (3, 11), 1 << 24)
        key = derive(KEY, CLIENT)
        connected = dial([Address("AF_INET", ("127.0.0.1", port))], key=key, key_id=b"", me=me)
        self.pid = connected.welcomed.pid
        with connected.connection as connection:
            self.socket = socket.socket(fileno=os.dup(connection.fileno()))
        self.socket.settimeout(CEILING)
        self._seals = Seals(connected.agreement.keys.sends)
        self._numbers = itertools.count(1)

    def send(self, *frames):
        written = b""
        for frame in frames:
            prefix = self._seals.prefix(next(self._numbers), frame)
            written += frame_header(len(prefix) + len(frame)) + prefix + frame
        with contextlib.suppress(OSError):  # it has ended already
            self.socket.sendall(written)

    def end(self):
        """Wait for the end of the connection; returns the seconds. Says that nothing more will come first."""
        began = time.monotonic()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(1 << 16):
                pass
        self.socket.close()
        return time.monotonic() - began


def is_refused(frames):
    for frame in frames:
        try:
            records = decode(frame)
        except ProtocolError:
            return True
        if records and is_large(records[0]):
            return False  # what follows is read as its buffers
    return False


class Flow:
    """Numbers that an honest client sends up and the server sends down, until it is stopped."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        self.up, self.down = [], []
        server.emitter.on("up", lambda message, number: self.up.append(number))
        client.emitter.on("down", lambda message, number: self.down.append(number))
        client.joined()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        for self.count in itertools.count(1):
            self.client.emitter.sendToParents("up", self.count)
            self.server.emitter.sendToChild(self.client.pid, "down", self.count)
            if self._stop.wait(0.001):
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def stop(self):
        """Returns all that has arrived in each direction, and what was sent."""
        self._stop.set()
        self._thread.join()
        self.client.emitter.sendToParents("last")
        self.server.wait("last")
        self.server.emitter.sendToChild(self.client.pid, "last")
        self.client.wait("last")
        return self.up, self.down, list(range(1, self.count + 1))


@pytest.mark.parametrize("count", STREAMS)
def test_hostile_streams_end_in_milliseconds_and_nothing_else_does(recorders, port, count):
    """B3: mutated frames with right seals, beside a client whose events all arrive, once, in order."""
    seed = time.time_ns() % 1_000_000
    print("seed", seed)
    draw = random.Random(seed)
    server = recorders("last", port=port, authkey=KEY).start()
    client = recorders("last", port=port, authkey=KEY, onlyConnect=True)
    errors = collections.Counter()  # by type; each exception would keep its connection alive
    for event in ("error", "online", "offline"):
        server.emitter.off(event, server.hear)
    server.emitter.on("error", lambda message, exc: errors.update([type(exc)]))
    refused = 0
    seconds = []
    with Flow(server, client) as flow:
        for _ in range(count):
            peer = Peer(port)
            if draw.random() < SHARE:
                peer.send(hostile.wire.encode([(ONLINE, (peer.pid,))]))
            frames = [hostile.any_frame(draw) or b"." for _ in range(draw.randrange(1, 4))]
            refused += is_refused(frames)
            peer.send(*frames)
            seconds.append(peer.end())
        up, down, sent = flow.stop()
    assert up == sent
    assert down == sent
    assert len(client.of("offline")) == 0
    assert client.of("error") == []
    assert sum(errors.values()) >= refused
    assert [kind for kind in errors if not issubclass(kind, IPEventsError)] == []
    assert statistics.median(seconds) < 0.05
    print(
        f"{count} streams, {refused} refused by the grammar, {sum(errors.values())} errors, {len(sent)} events each way,"
    )
    print(f"an end took {statistics.median(seconds) * 1e3:.1f} ms, at most {max(seconds) * 1e3:.0f} ms")


@pytest.mark.parametrize(
    "name", [name for name, frame in hostile.ATTACKS.items() if 0 < len(frame) < 3 << 20]
)
def test_an_attack_ends_its_connection_with_an_error(recorders, port, name):
    """B3, B4, D16, D17: the same attacks over a connection."""
    server = recorders(port=port, authkey=KEY).start()
    client = recorders(port=port, authkey=KEY, onlyConnect=True).joined()
    peer = Peer(port)
    peer.send(hostile.ATTACKS[name])
    peer.end()
    error = server.wait("error").args[0]
    assert isinstance(error, ProtocolError)
    assert "a frame" in str(error)
    client.emitter.sendToParents("evt", 1)
    assert server.wait("evt").args == (1,)
    assert server.of("offline") == []
