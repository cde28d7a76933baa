"""Sealed frames on a real connection: what is not what was written, in its turn, is never unpickled."""

from __future__ import annotations

import itertools
import socket
import threading
from multiprocessing.connection import Connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipevents._core.handshake import Agreement
from ipevents._core.messages import BROADCAST
from ipevents._core.seal import PREFIX_BYTES, Seals, direction_keys
from ipevents._core.wire import HEADER_BYTES, encode, parts
from ipevents._exceptions import Forged, ProtocolError
from ipevents._transport import frame_reader as module
from ipevents._transport.frame_reader import TimeSlice, Truncated, read_frames
from ipevents._transport.stream import Stream

CEILING = 30.0
WRITER = direction_keys(b"k" * 32, b"one connection", is_client=True)
READER = direction_keys(b"k" * 32, b"one connection", is_client=False)
OTHER = direction_keys(b"k" * 32, b"another connection", is_client=True)


def record(event, *payloads):
    return (BROADCAST, ("b",), event, None, list(payloads))


def large(event, *buffers):
    return record(event, [b"meta", list(buffers)])


def sealed(frames, key=WRITER.sends, first=1):
    """The bytes of each frame, with the buffers that follow it."""
    seals = Seals(key)
    return [b"".join(parts(records, seals, number)) for number, records in enumerate(frames, first)]


@pytest.fixture
def unpickled(monkeypatch):
    """The frames that came as far as the unpickler."""
    seen = []
    real = module.decode

    def watched(frame):
        seen.append(bytes(frame))
        return real(frame)

    monkeypatch.setattr(module, "decode", watched)
    return seen


def read(*pieces, limit=None):
    """What a reader makes of these bytes: the events of the records, and how it ended."""
    ours, peer = socket.socketpair()
    peer.settimeout(CEILING)
    stream = Stream(Connection(ours.detach()), limit, Agreement(READER))
    got = []
    error = []

    def run():
        try:
            read_frames(stream, "the peer", TimeSlice(), lambda records, size: got.append((records, size)))
        except (ProtocolError, Truncated) as exc:
            error.append(exc)
        stream.socket.close()

    thread = threading.Thread(target=run)
    thread.start()
    with peer:
        try:
            for piece in pieces:
                peer.sendall(piece)
            peer.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader has given up
        thread.join(CEILING)
    assert not thread.is_alive(), "the reader does not end"
    return got, type(error[0]) if error else None


FRAMES = [
    [record("a", (1,))],
    [record("b", (2,)), record("c", b"x" * 30)],
    [large("d", b"one buffer", bytearray(b"another"), b"")],
    [record("e", (3,))],
]


def test_what_was_written_is_read():
    got, error = read(*sealed(FRAMES))
    assert error is None
    assert [records for records, _ in got] == FRAMES
    assert got[0][1] == len(encode(FRAMES[0]))
    assert isinstance(got[2][0][0][4][0][1][1], bytearray)


def test_frames_may_come_in_any_pieces_and_sizes():
    frames = [[record("x", bytes(size))] for size in (5, 20_000, 300_000, 5)]
    frames += [[large("y", bytes(size), bytearray(size))] for size in (1, 70_000, 400_000)]
    frames.append([record("z", (1,))])
    data = b"".join(sealed(frames))
    for step in (1001, 17_000, 300_000, len(data)):
        got, error = read(*(data[at : at + step] for at in range(0, len(data), step)))
        assert error is None
        assert [records for records, _ in got] == frames


def test_a_byte_at_a_time(unpickled):
    data = b"".join(sealed(FRAMES))
    got, error = read(*(data[at : at + 1] for at in range(len(data))))
    assert (len(got), len(unpickled), error) == (4, 4, None)


def is_honest(got, unpickled, count):
    """Whether at most the first ``count`` frames were unpickled and passed on, as they were written."""
    assert unpickled == [encode(records) for records in written(FRAMES)][: len(unpickled)]
    assert [records for records, _ in got] == FRAMES[: len(got)]
    return len(got) <= count and len(unpickled) <= count + 1


def written(frames):
    """The records as they stand in the frame: with the sizes of large buffers in place of these."""
    for records in frames:
        kind, path, event, to, payloads = records[0]
        if type(payloads[0]) is list:
            meta, buffers = payloads[0]
            yield [(kind, path, event, to, [[meta, [(len(b), isinstance(b, bytes)) for b in buffers]]])]
        else:
            yield records


@pytest.mark.parametrize("bit", [1, 128])
def test_a_bit_that_was_changed_anywhere_ends_the_connection(unpickled, bit):
    pieces = sealed(FRAMES)
    whole = b"".join(pieces)
    ends = list(itertools.accumulate(map(len, pieces)))
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= bit
        unpickled.clear()
        got, error = read(bytes(changed))
        before = sum(end <= at for end in ends)
        assert error in (Forged, ProtocolError, Truncated), at
        assert is_honest(got, unpickled, before), at
        in_header = 0 <= at - ([0, *ends][before]) < HEADER_BYTES
        assert error is Forged or in_header, at


def test_what_is_cut_off_anywhere_is_not_delivered(unpickled):
    """B2: wherever the end is."""
    pieces = sealed(FRAMES)
    whole = b"".join(pieces)
    ends = [0, *itertools.accumulate(map(len, pieces))]
    for at in range(len(whole)):
        unpickled.clear()
        got, error = read(whole[:at])
        assert error is (None if at in ends else Truncated)
        assert is_honest(got, unpickled, sum(end <= at for end in ends) - 1)


@pytest.mark.parametrize(
    "order",
    [order for order in itertools.product(range(4), repeat=3) if order != (0, 1, 2)],
    ids=lambda order: "".join(map(str, order)),
)
def test_frames_that_are_repeated_left_out_or_moved_end_the_connection(unpickled, order):
    """D5: a replayed frame."""
    pieces = sealed(FRAMES)
    got, error = read(*(pieces[number] for number in order))
    right = next(place for place, number in enumerate(order) if place != number)
    assert error is Forged
    assert len(got) == right
    assert len(unpickled) == right


@pytest.mark.parametrize(
    "key", [READER.sends, OTHER.sends, OTHER.receives], ids=["reflected", "other", "other-reflected"]
)
def test_a_frame_of_another_direction_or_connection_ends_the_connection(unpickled, key):
    got, error = read(*sealed(FRAMES, key))
    assert (got, unpickled, error) == ([], [], Forged)


def test_a_frame_without_a_seal_ends_the_connection(unpickled):
    got, error = read(b"".join(parts(FRAMES[0])))
    assert (got, unpickled, error) == ([], [], Forged)


def test_the_limit_is_that_of_the_frame_without_its_seal():
    limit = 1 << 20
    largest = limit + module._FRAME_SLACK_BYTES
    header = (largest + PREFIX_BYTES).to_bytes(HEADER_BYTES, "big")
    assert read(header, limit=limit)[1] is Truncated
    header = (largest + PREFIX_BYTES + 1).to_bytes(HEADER_BYTES, "big")
    assert read(header, limit=limit)[1] is ProtocolError


def test_buffers_for_which_there_is_no_memory_are_skipped_with_their_seal(monkeypatch):
    real = module._receive

    def none_left(sock, size, head, readonly):
        if size == 70_000:
            raise module._NoMemory(size - len(head))
        return real(sock, size, head, readonly)

    monkeypatch.setattr(module, "_receive", none_left)
    frames = [[large("x", bytes(10), bytearray(70_000), bytes(10))], [record("y", (1,))]]
    for step in (1000, 1 << 20):
        data = b"".join(sealed(frames))
        got, error = read(*(data[at : at + step] for at in range(0, len(data), step)))
        assert error is None
        assert [size for _, size in got] == [module.LOST, len(encode(frames[1]))]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.binary(max_size=2000), min_size=1, max_size=3), min_size=1, max_size=6), st.data()
)
def test_any_frames_in_any_pieces(contents, data):
    frames = [
        [large(str(number), *content)] if data.draw(st.booleans()) else [record(str(number), *content)]
        for number, content in enumerate(contents)
    ]
    whole = b"".join(sealed(frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    edges = [0, *cuts, len(whole)]
    got, error = read(*(whole[a:b] for a, b in itertools.pairwise(edges)))
    assert error is None
    assert [records for records, _ in got] == frames
