"""What the kernel is told, and asked: over real TCP connections."""

from __future__ import annotations

import socket
import sys

import pytest
from cables import cut, mend, tcp_pair
from scripts import wait_until

from ipevents._transport.silence import SILENT, keep_alive, limit_receive, limit_send, on_its_way

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system says nothing of its connections")
CEILING = 30.0


@pytest.fixture
def ends():
    ours, theirs = tcp_pair()
    with ours, theirs:
        yield ours, theirs


def fill(sock):
    """Send until the kernel takes no more; returns how much that was."""
    sock.setblocking(False)
    size = 0
    try:
        while True:
            size += sock.send(bytes(1 << 16))
    except BlockingIOError:
        sock.setblocking(True)
        return size


def options(sock, *names):
    return [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]


def test_the_kernel_asks_while_nothing_is_on_its_way(ends):
    keep_alive(ends[0], 30.0)
    assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert options(ends[0], "TCP_KEEPINTVL", "TCP_KEEPCNT") == [5, 3]
    if sys.platform == "linux":
        assert options(ends[0], "TCP_KEEPIDLE", "TCP_USER_TIMEOUT") == [15, 0]


def test_the_longest_limit_is_one_that_the_kernel_takes(ends):
    keep_alive(ends[0], 2**31 / 1000)
    assert options(ends[0], "TCP_KEEPINTVL") == [32767]


def test_what_a_system_does_not_have_is_left_out(ends, monkeypatch):
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_INFO"):
        monkeypatch.delattr(socket, name)
    keep_alive(ends[0], 30.0)
    assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert on_its_way(ends[0]) is None


def test_macos_has_another_name_for_it(ends, monkeypatch):
    told = {}

    class Socket:
        def setsockopt(self, level, option, value):
            told[level, option] = value

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)
    keep_alive(Socket(), 30.0)
    assert told[socket.IPPROTO_TCP, 0x10] == 15
    assert on_its_way(ends[0]) is None


@linux
def test_an_old_kernel_says_too_little(ends, monkeypatch):
    class Socket:
        def getsockopt(self, *args):
            return bytes(104)

    assert on_its_way(Socket()) is None


@linux
def test_nothing_is_on_its_way_when_the_kernel_at_the_other_end_has_it(ends):
    ours, _ = ends
    ours.send(bytes(100))
    wait_until(lambda: on_its_way(ours)[:3] == (0, 0, 0))


@linux
def test_the_kernel_knows_how_long_an_answer_takes(ends):
    ours, theirs = ends
    ours.send(bytes(100))
    wait_until(lambda: on_its_way(ours).in_flight == 0)
    assert 0.0 < on_its_way(ours).round_trip < 1.0


@linux
def test_a_peer_that_does_not_read_leaves_nothing_in_flight_and_answers_probes(ends):
    ours, theirs = ends
    size = fill(ours)
    wait_until(lambda: on_its_way(ours).in_flight == 0)
    found = on_its_way(ours)
    assert 0 < found.unsent <= size
    since = found.since_acknowledged
    wait_until(lambda: on_its_way(ours).since_acknowledged > since)
    wait_until(lambda: on_its_way(ours).since_acknowledged <= since)  # it was asked, and has answered
    assert on_its_way(ours).probes <= 1
    cut(theirs)
    wait_until(lambda: on_its_way(ours).probes >= 2)
    mend(theirs)
    while size:
        size -= len(theirs.recv(1 << 20))
    wait_until(lambda: on_its_way(ours)[:3] == (0, 0, 0))


@linux
def test_what_is_sent_to_a_dead_peer_stays_in_flight_and_is_sent_again(ends):
    ours, theirs = ends
    cut(theirs)
    ours.send(bytes(100))
    wait_until(lambda: on_its_way(ours).since_acknowledged > 1.0)
    found = on_its_way(ours)
    assert (found.in_flight, found.unsent) == (1, 0)
    assert found.since_sent < found.since_acknowledged
    mend(theirs)
    wait_until(lambda: on_its_way(ours).in_flight == 0)


@linux
def test_an_idle_connection_to_a_dead_peer_ends(ends):
    ours, theirs = ends
    keep_alive(ours, 1.0)
    cut(ours, theirs)
    ours.settimeout(CEILING)
    with pytest.raises(OSError, match=".") as caught:
        ours.recv(1)
    assert caught.value.errno in SILENT


def test_a_receive_with_a_limit_ends_and_may_be_repeated(ends):
    ours, theirs = ends
    ours.setblocking(True)
    limit_receive(ours, 0.05)
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    theirs.send(b"x")
    assert ours.recv(1) == b"x"
    limit_receive(ours, 0.0)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)


def test_a_send_with_a_limit_ends_with_what_was_sent(ends):
    ours, _ = ends
    limit_send(ours, 0.05)
    data, sent = bytes(1 << 26), []

    def send_for_ever():
        while True:
            sent.append(ours.send(data))

    with pytest.raises(BlockingIOError):
        send_for_ever()
    assert 0 < sent[0] < len(data)
