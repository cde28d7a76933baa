"""One connection of a link: who owns its descriptor, and what one write takes of what is to be sent."""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection

import pytest
from cables import tcp_pair
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.liveness import OnItsWay
from ipevents._transport import stream as module
from ipevents._transport.stream import AT_ONCE, WAITING, Stream, remaining, send_parts, shut_down

CEILING = 10.0  # reached only in a deadlock


@pytest.fixture
def ends():
    """Our end as a Connection, and the socket of the peer."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(CEILING)
    connection = Connection(ours.detach())
    with theirs:
        yield connection, theirs
    connection.close()


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    theirs.settimeout(CEILING)
    with ours, theirs:
        yield ours, theirs


# Descriptors


def test_a_stream_has_a_descriptor_of_its_own_and_closes_that_which_it_was_given(ends):
    connection, theirs = ends
    stream = Stream(connection, 5)
    with stream.socket:
        assert connection.closed
        assert (stream.max_message, stream.failed) == (5, False)
        stream.socket.sendall(b"x")
        assert theirs.recv(1) == b"x"
    assert theirs.recv(1) == b""


def test_a_stream_blocks_whatever_the_default_of_the_process_is(ends):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3.0)
    try:
        stream = Stream(ends[0], None)
    finally:
        socket.setdefaulttimeout(before)
    with stream.socket:
        assert stream.socket.gettimeout() is None
        assert os.get_blocking(stream.socket.fileno())


@pytest.mark.parametrize("step", ["dup", "socket", "close"])
def test_the_peer_of_a_stream_that_could_not_be_made_notices(ends, monkeypatch, step):
    connection, theirs = ends

    def fails(*args, **kwargs):
        raise KeyboardInterrupt

    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch:
        if step == "dup":
            patch.setattr(module.os, "dup", fails)
        elif step == "socket":
            patch.setattr(module.socket.socket, "setblocking", fails)
        else:
            patch.setattr(connection, "close", fails)
        with pytest.raises(KeyboardInterrupt):
            Stream(connection, None)
    assert theirs.recv(1) == b""
    assert len(os.listdir("/dev/fd")) == before


# Whether the peer is dead

IDLE = OnItsWay(0, 0, 0, 99.0, 99.0)
UNREAD = OnItsWay(0, 5000, 0, 99.0, 0.1)
SILENT = OnItsWay(1, 0, 0, 5.0, 99.0)


@pytest.fixture
def tcp():
    """A stream over TCP, dead after 16 s."""
    ours, theirs = tcp_pair()
    stream = Stream(Connection(ours.detach()), None, dead_after=16.0)
    with theirs, stream.socket:
        yield stream


@pytest.fixture
def found(monkeypatch):
    """What each look finds."""
    findings = []
    monkeypatch.setattr(module, "on_its_way", lambda sock: findings.pop(0))
    return findings


def test_over_a_path_nobody_looks(ends):
    stream = Stream(ends[0], None, dead_after=30.0)
    with stream.socket:
        assert (stream.dead_after, stream.look_at, stream.is_watched) == (0.0, float("inf"), False)


def test_without_a_limit_nobody_looks():
    ours, theirs = tcp_pair()
    stream = Stream(Connection(ours.detach()), None)
    with theirs, stream.socket:
        assert (stream.dead_after, stream.look_at) == (0.0, float("inf"))
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_where_the_system_says_nothing_the_kernel_still_asks(found):
    found.append(None)
    ours, theirs = tcp_pair()
    stream = Stream(Connection(ours.detach()), None, dead_after=30.0)
    with theirs, stream.socket:
        assert (stream.dead_after, stream.look_at) == (30.0, float("inf"))
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_write_begins_a_watch_which_ends_when_nothing_is_on_its_way(tcp, found):
    assert (tcp.look_at, tcp.is_watched) == (0.0, False)
    tcp.watch(1000.0)
    assert (tcp.look_at, tcp.is_watched) == (1002.0, True)
    found += [UNREAD, IDLE]
    assert tcp.look(1002.0)
    assert (tcp.look_at, tcp.is_watched) == (1004.0, True)
    assert tcp.look(1004.0)
    assert (tcp.look_at, tcp.is_watched) == (1004.0, False)  # what is written from now on begins another


def test_a_peer_is_dead_when_looks_have_found_something_unanswered_for_the_whole_time(tcp, found):
    tcp.watch(1000.0)
    times = range(1002, 1019, 2)
    found += [SILENT] * len(times)
    assert [tcp.look(float(now)) for now in times] == [True] * (len(times) - 1) + [False]


def test_what_was_on_its_way_before_an_idle_time_does_not_count(tcp, found):
    found += [SILENT, IDLE, SILENT, SILENT, SILENT]
    assert [tcp.look(float(now)) for now in (1000, 1010, 1020, 1035, 1036)] == [True] * 4 + [False]


def test_a_connection_that_ends_is_looked_at_no_more(tcp):
    tcp.watch(1000.0)
    tcp.unwatch()
    assert (tcp.look_at, tcp.is_watched) == (float("inf"), False)


@pytest.mark.parametrize("state", ["open", "shut", "closed"])
def test_a_shutdown_is_no_error_whatever_has_ended_before(sockets, state):
    ours, theirs = sockets
    if state == "shut":
        shut_down(ours, socket.SHUT_RDWR)
    if state == "closed":
        ours.close()
    shut_down(ours, socket.SHUT_RDWR)
    assert theirs.recv(1) == b""


def test_one_direction_may_end_without_the_other(sockets):
    ours, theirs = sockets
    shut_down(ours, socket.SHUT_WR)
    assert theirs.recv(1) == b""
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


# Writing


def receive_all(sock):
    found = b""
    while data := sock.recv(1 << 20):
        found += data
    return found


PARTS = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=5)


@pytest.fixture
def short_writes(monkeypatch):
    monkeypatch.setattr(module, "_SEND_BYTES", 4)


def test_whatever_is_to_be_sent_arrives_once_and_in_order(short_writes):
    @given(PARTS, st.booleans())
    def check(parts, is_view):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            left = [memoryview(part) if is_view else part for part in parts]
            calls = 0
            while left:
                taken = []
                is_all = send_parts(ours, left, WAITING, taken)
                (count,) = taken
                assert count > 0
                left = remaining(left, count)
                assert not (is_all and left)
                calls += 1
            assert calls <= sum(-(-len(part) // 4) for part in parts), "each but the last takes what it may"
            shut_down(ours, socket.SHUT_WR)
            assert receive_all(theirs) == b"".join(parts)

    check()


@given(PARTS, st.data())
def test_what_remains_is_the_rest_without_empty_parts(parts, data):
    most = len(parts[0]) + (len(parts[1]) if len(parts) > 1 else 0)
    count = data.draw(st.integers(0, most))
    rest = remaining([memoryview(part) for part in parts], count)
    assert b"".join(rest) == b"".join(parts)[count:]
    assert all(len(part) for part in rest)


def test_a_single_part_that_was_taken_whole_is_known_to_be_all(sockets):
    taken = []
    assert send_parts(sockets[0], [b"12345"], AT_ONCE, taken) is True
    assert taken == [5]


def test_a_call_takes_no_more_than_so_many_bytes_so_that_progress_can_be_seen(sockets, short_writes):
    for parts, count in [([b"123456"], 4), ([b"12", b"345678"], 6), ([b"1234", b"5"], 4)]:
        taken = []
        assert send_parts(sockets[0], parts, AT_ONCE, taken) is False
        assert taken == [count]


@pytest.mark.parametrize("parts", [[b"1"], [b"1", b"2"], [b"12345"]])
def test_where_the_kernel_takes_nothing_nothing_is_counted(sockets, short_writes, parts):
    ours, theirs = sockets
    ours.setblocking(False)
    written = 0
    try:
        while True:
            written += ours.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    while True:  # and not one byte more
        try:
            written += ours.send(b"\0")
        except BlockingIOError:
            break
    ours.setblocking(True)
    taken = []
    assert send_parts(ours, parts, AT_ONCE, taken) is False
    assert taken == []
    shut_down(ours, socket.SHUT_WR)
    assert len(receive_all(theirs)) == written


@pytest.mark.parametrize("parts", [[b"1"], [b"1", b"2"], [b"12345"]])
def test_a_peer_that_is_gone_is_an_error_and_no_signal(sockets, short_writes, parts):
    ours, theirs = sockets
    theirs.close()
    taken = []
    with pytest.raises(BrokenPipeError):
        send_parts(ours, parts, WAITING, taken)
    assert taken == []
