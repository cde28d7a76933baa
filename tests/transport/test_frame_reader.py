"""Bytes of a connection to records: in pieces, in one piece, cut, too large, or none of ours."""

from __future__ import annotations

import socket
import struct
import threading
from multiprocessing.connection import Connection

import pytest
from cables import tcp_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import wait_until

from ipevents._core.messages import BROADCAST, PAYLOADS, PROGRAM
from ipevents._core.wire import FRAME_BYTES, encode, frame_header, parts
from ipevents._exceptions import ProtocolError
from ipevents._transport import frame_reader as module
from ipevents._transport.frame_reader import LOST, Stalled, TimeSlice, Truncated, read_frames
from ipevents._transport.stream import Stream

CEILING = 10.0  # reached only in a deadlock


class Reading:
    """A reader thread at one end of a connection; ``peer`` is the socket at the other end."""

    def __init__(self, limit=None, on_frame=None, dead_after=0.0):
        ours, self.peer = tcp_pair() if dead_after else socket.socketpair()
        self.peer.settimeout(CEILING)
        self.stream = Stream(Connection(ours.detach()), limit, dead_after=dead_after)
        self.frames = []  # the records of each, and its size
        self.error = None
        self._on_frame = on_frame or (lambda *frame: self.frames.append(frame))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            read_frames(self.stream, "the peer", TimeSlice(), self._on_frame)
        except BaseException as exc:  # whatever it is, the test looks at it
            self.error = exc
        self.stream.socket.close()  # so that the peer does not write for ever

    def send(self, *pieces):
        try:
            for piece in pieces:
                self.peer.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader has given up, as some tests want
        return self

    def result(self):
        """What was read until the end of the connection; raises what the reader raised."""
        self.peer.shutdown(socket.SHUT_WR)
        self._thread.join(CEILING)
        assert not self._thread.is_alive(), "the reader does not end"
        self.peer.close()
        if self.error is not None:
            raise self.error
        return self.frames


def read(*pieces, limit=None):
    return Reading(limit).send(*pieces).result()


def messages(frames):
    return [
        (record[2], payload) for records, _ in frames for record in records for payload in record[PAYLOADS]
    ]


def record(event, *payloads):
    return (BROADCAST, ("b",), event, None, list(payloads))


def framed(*records):
    """The bytes of a frame, with the buffers that follow it."""
    return b"".join(parts(list(records)))


def headed(*records):
    """The bytes of a frame alone, which may announce what does not follow."""
    frame = encode(list(records))
    return frame_header(len(frame)) + frame


def large(event, *buffers):
    return record(event, [b"meta", list(buffers)])


# Frames


def test_a_connection_that_ends_at_once_has_no_frames():
    assert read() == []


def test_a_frame_may_come_in_pieces():
    data = framed(record("x", (1,))) * 3
    pieces = [data[index : index + 1] for index in range(len(data))]
    assert messages(read(*pieces)) == [("x", (1,))] * 3


def test_a_frame_without_records_is_none_to_speak_of():
    frames = read(headed(), framed(record("x", (1,))))
    assert messages(frames) == [("x", (1,))]


def test_a_large_frame_may_be_followed_by_others_in_one_piece():
    data = b"".join(framed(record("x", (bytes(size),))) for size in (200_000, 5, 400_000, 5))
    assert [len(payload[0]) for _, payload in messages(read(data))] == [200_000, 5, 400_000, 5]


def test_each_frame_comes_with_its_size():
    small, long = record("x", (1,)), record("x", (bytes(300_000),))
    several = [record("x", (1,)), record("y", (2,))]
    frames = read(framed(small), framed(long), framed(*several))
    assert [records for records, _ in frames] == [[small], [long], several]
    assert [size for _, size in frames] == [len(encode(records)) for records in ([small], [long], several)]


BUFFERS = st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(bytearray))
RECORDS = st.one_of(
    st.builds(lambda number: record("x", (number,)), st.integers()),
    st.builds(lambda size: record("x", (bytes(size),)), st.integers(0, 300)),
    st.builds(lambda buffers: large("large", *buffers), st.lists(BUFFERS, max_size=3)),
)


def test_records_arrive_the_same_however_they_are_cut_into_pieces(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_READ", 16)
    monkeypatch.setattr(module, "_LARGEST_READ", 64)

    @settings(max_examples=60)
    @given(st.lists(RECORDS, max_size=8), st.lists(st.integers(0, 2000), max_size=6))
    def check(records, cuts):
        data = b"".join(framed(one) for one in records)
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        frames = read(*(data[begin:end] for begin, end in zip(places, places[1:], strict=False)))
        assert [one for (one,), _ in frames] == records
        for (one,), expected in zip((records for records, _ in frames), records, strict=True):
            found, sent = one[PAYLOADS][0], expected[PAYLOADS][0]
            if type(sent) is list:
                assert [type(buffer) for buffer in found[1]] == [type(buffer) for buffer in sent[1]]

    check()


# Large buffers


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 300_000, 2_000_000])
def test_buffers_arrive_as_the_kind_that_they_were_and_count_for_the_size(size):
    content = bytes(range(256)) * (size // 256 + 1)
    one = large("x", content[:size], bytearray(content[:size]))
    ((records, total),) = read(framed(one))
    assert records == [one]
    assert [type(buffer) for buffer in records[0][PAYLOADS][0][1]] == [bytes, bytearray]
    assert total == len(framed(one)) - 4


def test_between_large_buffers_small_frames_arrive():
    sent = [record("a", (1,)), large("b", bytes(100_000)), large("c", bytearray(100_000)), record("d", (2,))]
    frames = read(b"".join(framed(one) for one in sent), framed(record("e", (3,))))
    assert [one for (one,), _ in frames] == [*sent, record("e", (3,))]


def test_after_large_buffers_exactly_what_is_missing_is_asked_for():
    """So the next ones go from the kernel to where they stay."""
    asked = []

    class Asking:
        """A socket that notes how much is asked of it, and has one frame after the other."""

        def __init__(self, data):
            self._data = data

        def recv(self, size, flags=0):
            asked.append(size)
            found, self._data = self._data[:size], self._data[size:]
            return found

        def recv_into(self, view):
            found = self.recv(len(view))
            view[: len(found)] = found
            return len(found)

    class Asked:
        max_message = opens = None
        dead_after = 0.0

    one = large("x", bytearray(50_000))
    frame = len(framed(one)) - 4 - 50_000
    first = framed(one)
    Asked.socket = Asking(first + first + framed(record("y", (1,))))
    frames = []
    read_frames(Asked, "the peer", TimeSlice(), lambda records, size: frames.append(records[0][2]))
    assert frames == ["x", "x", "y"]
    begin = 4 + frame + 50_000 - module._FIRST_READ  # of the first: what the first step did not bring
    assert asked[:5] == [module._FIRST_READ, begin, 4, frame, 50_000]


# No memory


@pytest.fixture
def scarce(monkeypatch):
    """There is memory for small buffers only."""

    def made(size):
        if type(size) is int and size > module._FIRST_READ:
            raise MemoryError
        return bytearray(size)

    monkeypatch.setattr(module, "bytearray", made, raising=False)


@pytest.mark.parametrize("others", [[], [b"1"], [bytearray(500), b"2"]])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_an_event_for_which_there_is_no_memory_is_lost_and_the_next_one_comes(scarce, others, step):
    data = framed(large("x", bytearray(50_000), *others)) + framed(record("y", (1,)))
    frames = read(*(data[at : at + step] for at in range(0, len(data), step)))
    assert [(records[0][2], size == LOST) for records, size in frames] == [("x", True), ("y", False)]


def test_a_control_record_cannot_be_lost_so_the_connection_ends(scarce):
    data = framed((PROGRAM, (), "", None, [[b"meta", [bytearray(50_000)]]]))
    with pytest.raises(ProtocolError, match="a buffer of 50000 bytes, for which there is no memory"):
        read(data)


@pytest.mark.parametrize("size", [module._LARGEST_MEMORY + 1, 1 << 62, 1 << 70])
@pytest.mark.parametrize("readonly", [True, False])
def test_a_buffer_that_no_process_can_have_sent_ends_the_connection(monkeypatch, size, readonly):
    def receive(sock, size, head, readonly):
        if size > module._FIRST_READ:
            raise OverflowError if size > 1 << 63 else module._NoMemory(size - len(head))
        return real(sock, size, head, readonly)

    real = module._receive
    monkeypatch.setattr(module, "_receive", receive)
    with pytest.raises(ProtocolError, match="for which there is no memory"):
        read(headed(record("x", [b"meta", [(size, readonly)]])))


# Limits


@pytest.mark.parametrize(
    "data",
    [
        frame_header(100 << 20),
        frame_header(1024 + 32 * FRAME_BYTES + 1),
        headed(record("x", [b"meta", [(1025, True)]])),
        headed(record("x", [b"meta", [(512, True), (513, False)]])),
    ],
)
def test_more_than_max_message_is_refused_before_it_is_read(data):
    reading = Reading(1024).send(data)
    with pytest.raises(ProtocolError, match="allowed"):
        reading.result()
    assert reading.frames == []


def test_as_much_as_max_message_is_taken():
    one = large("x", bytes(512), bytearray(512))
    assert [records for records, _ in read(framed(one), limit=1024)] == [[one]]


def test_many_small_messages_may_be_more_in_one_frame():
    several = [record("x", ("x" * 1000,)) for _ in range(100)]
    assert [records for records, _ in read(framed(*several), limit=1024)] == [several]


# What is no frame of ours

GARBAGE = {
    "no pickle": frame_header(7) + b"garbage",
    "a negative length": struct.pack("!i", -2),
    "a length of nothing": struct.pack("!i", 0),
    "the long form": struct.pack("!iQ", -1, 5) + b"x" * 5,
    "a class": frame_header(15) + b"cos\nsystem\n.   ",
    "records that are none": headed(5),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "buffers that are none": headed(record("x", [b"meta", [("1", True)]])),
    "buffers of less than nothing": headed(record("x", [b"meta", [(-1, True)]])),
    "buffers beside others": headed(record("x", [b"meta", [(1, True)]]), record("y", ())),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_breach_of_the_protocol_and_what_came_before_it_counts(name):
    reading = Reading(1 << 20).send(framed(record("x", (1,))), GARBAGE[name])
    with pytest.raises(ProtocolError):
        reading.result()
    assert messages(reading.frames) == [("x", (1,))]


@pytest.mark.parametrize("is_large", [False, True])
def test_nothing_of_a_frame_that_was_cut_is_passed_on(is_large):
    data = framed(large("x", b"0123456789", bytearray(10)) if is_large else record("x", (1,)))
    for length in range(1, len(data)):
        reading = Reading().send(framed(record("before", ())), data[:length])
        with pytest.raises(Truncated, match="ended within a frame"):
            reading.result()
        assert messages(reading.frames) == [("before", ())]


def test_a_large_frame_that_was_cut_is_not_passed_on_either():
    reading = Reading().send(framed(record("x", (bytes(400_000),)))[:-1])
    with pytest.raises(Truncated):
        reading.result()
    assert reading.frames == []


def test_what_the_receiver_raises_ends_the_reading():
    def fails(records, size):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Reading(on_frame=fails).send(framed(record("x", (1,)))).result()


# Turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; its time is an attribute, as are the sleeps."""

    class Clock:
        now = 100.0

        def __init__(self):
            self.sleeps = []

        def sleep(self, seconds):
            self.sleeps.append(seconds)
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(module, "monotonic", lambda: clock.now)
    monkeypatch.setattr(module, "sleep", clock.sleep)
    return clock


def test_a_reader_lets_others_run_when_it_has_run_for_long(clock):
    turn = TimeSlice()
    turn.began = clock.now
    clock.now += module.SLICE_SECONDS
    assert not turn.is_long()
    assert (turn.breathe(), clock.sleeps) == (clock.now, [])
    clock.now += 0.001
    assert turn.is_long()
    assert (turn.breathe(), clock.sleeps) == (clock.now, [module.BREATH_SECONDS])
    assert turn.began == clock.now
    assert not turn.is_long()


@pytest.mark.parametrize(("waits", "breathes"), [(0.0, True), (0.001, False)])
def test_a_reader_that_has_waited_for_its_peer_needs_no_breath(clock, waits, breathes):
    """Each frame takes almost a slice; with a wait in between a new slice begins."""
    data = framed(record("x", (1,)))

    class Waiting:
        left = 3

        def recv(self, size, flags=0):
            clock.now += waits
            self.left -= 1
            return data if self.left >= 0 else b""

    class Read:
        max_message = opens = None
        dead_after = 0.0
        socket = Waiting()

    def takes_long(records, size):
        clock.now += 0.7 * module.SLICE_SECONDS

    read_frames(Read, "the peer", TimeSlice(), takes_long)
    assert bool(clock.sleeps) is breathes


# Progress within a frame

LARGE = framed(large("x", bytes(3_000_000), bytes(3_000_000)))
BEGUN = {  # bytes of which the rest never comes
    "header": framed(record("x", (1,)))[:3],
    "frame": framed(record("x", (1,)))[:-1],
    "large frame": framed(record("x", (b"x" * 100_000, b"y" * 100_000, b"z" * 100_000)))[:-1],
    "buffer": LARGE[:1_000_000],
    "second buffer": LARGE[:-1],
    "buffer in a bytearray": framed(large("x", bytearray(3_000_000)))[:-1],
    "after a whole frame": framed(record("x", (1,))) + framed(record("x", (1,)))[:5],
    "after a large one": LARGE + framed(record("x", (1,)))[:5],
}


class Step:
    """The limits that the reader sets. In truth each of them is shorter than any that may be given."""

    def __init__(self, monkeypatch):
        self.limits = []
        real = module.limit_receive

        def limited(sock, seconds):
            self.limits.append(seconds)
            real(sock, seconds and 0.3)

        monkeypatch.setattr(module, "limit_receive", limited)


@pytest.fixture
def step(monkeypatch):
    return Step(monkeypatch)


@pytest.mark.parametrize("begun", BEGUN)
def test_a_frame_that_was_begun_and_does_not_go_on_ends_the_reading(step, begun):
    """B1: after so long without a byte of it."""
    reading = Reading(dead_after=5.0).send(BEGUN[begun])
    reading._thread.join(CEILING)
    with pytest.raises(Stalled):
        reading.result()
    assert step.limits[0] == 5.0


def test_a_buffer_for_which_there_is_no_memory_has_to_come_all_the_same(step, monkeypatch):
    monkeypatch.setattr(module, "bytearray", no_memory, raising=False)
    reading = Reading(dead_after=5.0).send(framed(large("x", bytearray(3_000_000)))[:-1])
    reading._thread.join(CEILING)
    with pytest.raises(Stalled):
        reading.result()


def no_memory(size):
    if size > 1_000_000:
        raise MemoryError
    return bytearray(size)


def test_between_two_frames_a_peer_may_be_silent_for_ever_and_wakes_the_reader_once(step):
    """The limit is set with a frame that comes in two pieces, and is taken away when nothing follows it."""
    first = framed(record("x", (1,)))
    is_over = threading.Event()
    reading = Reading(dead_after=5.0, on_frame=lambda *frame: is_over.set())
    for _ in range(3):
        reading.send(first[:5])
        wait_until(lambda: step.limits[-1:] == [5.0])
        assert not is_over.is_set()
        reading.send(first[5:])
        assert is_over.wait(CEILING)
        wait_until(lambda: step.limits[-1] == 0.0)  # the one time-out
        is_over.clear()
    reading.result()
    assert step.limits == [5.0, 0.0] * 3


@pytest.mark.parametrize("whole", [framed(record("x", (1,))), LARGE], ids=["small", "large"])
def test_a_frame_may_trickle_for_longer_than_the_limit(monkeypatch, whole):
    """Each piece comes within the limit, and all of them take several times as long."""
    real = module.limit_receive
    monkeypatch.setattr(module, "limit_receive", lambda sock, seconds: real(sock, seconds and 0.4))
    reading = Reading(dead_after=5.0)
    pause = threading.Event()
    size = -(-len(whole) // 12)
    for at in range(0, len(whole), size):
        reading.send(whole[at : at + size])
        pause.wait(0.1)
    assert len(messages(reading.result())) == 1


def test_frames_that_come_whole_cost_no_call(step):
    frame = framed(record("x", (1,)))
    reading = Reading(dead_after=5.0)
    for _ in range(100):
        reading.send(frame)
    assert len(messages(reading.result())) == 100
    assert step.limits == []


def test_without_a_limit_a_frame_may_take_for_ever(step):
    reading = Reading().send(BEGUN["frame"])
    with pytest.raises(Truncated):
        reading.result()
    assert step.limits == []
