"""The second connection between a parent and a child."""

from __future__ import annotations

import socket

import pytest

from ipevents._core.messages import FAULT, ONLINE, PROBE, RUNS, STOP, control
from ipevents._core.wire import encode, frame_header
from ipevents._exceptions import ProtocolError
from ipevents._processes.control_channel import ControlChannel

pytestmark = pytest.mark.usefixtures("all_is_given_back")

PROBED = control(PROBE, number=7, limit=1500)
STOPS = control(STOP, milliseconds=12)
ANSWERS = control(RUNS, number=7, running=None, listener="", text="")


class Pair:
    """A channel between a parent and a child, and what each end has heard."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.heard = []
        self.failed = []
        self.parent = self.end(ours, "child")
        self.child = self.end(theirs, "parent")

    def end(self, sock, other):
        def hear(*record):
            self.heard.append((other, *record))

        return ControlChannel(sock, hear, self.failed.append, is_to_parent=other == "parent")

    def failures(self):
        return [type(error) for error in self.failed]

    def close(self):
        self.parent.close()
        self.child.close()


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.close()


def test_records_arrive_in_order_at_both_ends(pair):
    pair.parent.put(PROBED)
    pair.parent.put(STOPS)
    pair.parent.write()
    pair.child.put(ANSWERS)
    pair.child.write()
    pair.child.read()
    pair.parent.read()
    assert pair.heard == [
        ("parent", PROBE, {"number": 7, "limit": 1500}),
        ("parent", STOP, {"milliseconds": 12}),
        ("child", RUNS, {"number": 7, "running": None, "listener": "", "text": ""}),
    ]


def test_nothing_blocks_where_nothing_has_come_and_where_the_kernel_takes_no_more(pair):
    pair.child.read()
    text = control(RUNS, number=1, running=5000, listener="l", text="x" * 60_000)
    for _ in range(100):
        pair.child.put(text)
    pair.child.write()
    assert pair.child.has_more
    while len(pair.heard) < 100:
        pair.parent.read()
        pair.child.write()
    assert not pair.child.has_more
    assert {len(items["text"]) for _, _, items in pair.heard} == {60_000}


def test_a_frame_may_come_in_pieces_of_one_byte(pair):
    frame = encode([ANSWERS])
    for byte in frame_header(len(frame)) + frame:
        assert not pair.heard
        pair.child._socket.send(bytes([byte]))
        pair.parent.read()
    assert len(pair.heard) == 1


@pytest.mark.parametrize(
    "record", [PROBED, STOPS, control(ONLINE, path=("1",)), control(FAULT, text=""), (33,), (33, 1)]
)
def test_a_child_says_what_runs_and_nothing_else(pair, record):
    pair.child.put(record)
    pair.child.write()
    pair.parent.read()
    assert pair.failures() == [ProtocolError]
    assert pair.parent.is_over
    assert pair.heard == []


@pytest.mark.parametrize(
    "record",
    [ANSWERS, (32, 1), (32, "1", 2), (32, -1, 2), (21, None), (1.0,), ("a",), (True, 1, 2), ((32,), 1, 2)],
)
def test_a_parent_asks_and_stops_and_nothing_else(pair, record):
    pair.parent.put(record)
    pair.parent.write()
    pair.child.read()
    assert pair.failures() == [ProtocolError]
    assert pair.child.is_over
    assert pair.heard == []


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x04abcd"])
def test_what_is_no_frame_is_refused(pair, data):
    pair.child._socket.send(data)
    pair.parent.read()
    assert pair.failures() == [ProtocolError]


@pytest.mark.parametrize("reset", [False, True])
def test_the_end_of_the_other_end_ends_the_channel(pair, reset):
    if reset:  # with something unread in it
        pair.parent.put(PROBED)
        pair.parent.write()
    pair.child.close()
    assert not pair.parent.is_over
    pair.parent.read()
    assert pair.parent.is_over


def test_what_is_written_to_an_end_that_is_gone_is_dropped(pair):
    pair.child.close()
    pair.parent.put(STOPS)
    pair.parent.write()
    assert pair.parent.is_over
    pair.parent.put(STOPS)
    pair.parent.write()
