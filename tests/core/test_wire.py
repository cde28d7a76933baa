from __future__ import annotations

import array
import collections
import functools
import io
import os
import pickle
import struct
import sys
from multiprocessing.connection import Connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipevents._core import wire
from ipevents._core.messages import BROADCAST, INTEREST
from ipevents._core.wire import (
    decode,
    encode,
    encode_large,
    frame_header,
    frame_size,
    is_large,
    large_sizes,
    parts,
    with_buffers,
)
from ipevents._exceptions import ProtocolError

INTS = st.integers(-(1 << 255), 1 << 255)
ATOMS = st.none() | st.booleans() | INTS | st.floats(allow_nan=False) | st.text() | st.binary()
PLAIN = ATOMS | st.tuples(ATOMS, ATOMS) | st.lists(ATOMS, max_size=2)
RECORDS = st.lists(st.lists(PLAIN, min_size=1, max_size=5).map(tuple), max_size=3)
few = settings(max_examples=50)


@few
@given(RECORDS)
def test_what_is_encoded_is_decoded(records):
    assert decode(encode(records)) == records


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_frame_is_read_from_any_bytes(kind):
    assert decode(kind(encode([(1, "x")]))) == [(1, "x")]


@few
@given(RECORDS.filter(bool))
def test_what_is_written_is_the_header_and_the_frame(records):
    frame = encode(records)
    assert b"".join(parts(records)) == frame_header(len(frame)) + frame


def test_what_is_written_of_a_long_frame_is_not_copied_behind_its_header():
    frame = encode([(1, bytes(20_000))])
    assert [bytes(part) for part in parts([(1, bytes(20_000))])] == [frame_header(len(frame)), frame]


# Hostile bytes: a ProtocolError, nothing else


@given(st.binary(max_size=200))
def test_random_bytes_are_a_protocol_error_or_records(data):
    try:
        records = decode(data)
    except ProtocolError:
        return
    assert type(records) is list
    assert all(record and type(record) in (tuple, list) for record in records)


@few
@given(RECORDS, st.data())
def test_a_changed_byte_is_a_protocol_error_or_records(records, data):
    frame = bytearray(encode(records))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(frame)
    except ProtocolError:
        return


@few
@given(RECORDS, st.data())
def test_a_frame_that_was_cut_is_a_protocol_error(records, data):
    frame = encode(records)
    with pytest.raises(ProtocolError):
        decode(frame[: data.draw(st.integers(0, len(frame) - 1))])


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/ipevents-was-here",)


class State:
    """Sets a state when it is unpickled."""

    def __init__(self):
        self.value = 1


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        State(),
        os.system,
        int,
        type(None),
        len,
        State,
        ProtocolError("x"),
        range(3),
        1j,
        array.array("i", [1]),
        collections.OrderedDict(a=1),
        functools.partial(print),
    ],
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_is_not_plain_is_unpickled(value, protocol):
    """D8: not even a header of somebody who has the key."""
    with pytest.raises(ProtocolError):
        decode(pickle.dumps([(1, value)], protocol))


HOSTILE = {
    "empty": b"",
    "no records but a tuple": pickle.dumps(((1,),), 5),
    "no list": pickle.dumps({1: 2}, 5),
    "an empty record": pickle.dumps([()], 5),
    "a record that is a dict": pickle.dumps([{1: 2}], 5),
    "a record that is a text": pickle.dumps(["text"], 5),
    "a record that is None": pickle.dumps([None], 5),
    "a nesting that is too deep to be shown": b"\x80\x05]("
    + b"}\x8c\x01x" * 20_000
    + b"N"
    + b"s" * 20_000
    + b"e.",
    "a length of 2 GiB": b"\x80\x05](B\xff\xff\xff\x7f",
    "a length of 2**63": b"\x80\x05](\x8e" + b"\xff" * 8,
    "a persistent id": b"\x80\x05](cos\nsystem\nPx\n.",
    "an extension code": b"\x80\x05](\x82\x01e.",
    "a buffer out of band": b"\x80\x05](\x97e.",
    "an old instance": b"(ios\nsystem\n.",
    "a name from the stack": b"\x80\x05]\x8c\x02os\x8c\x06system\x93a.",
    "a call": b"\x80\x05](cos\nsystem\n(X\x02\x00\x00\x00idtRe.",
    "a new object": b"\x80\x05](cos\nsystem\n)\x81e.",
    "a state for a list": b"\x80\x05](]}X\x01\x00\x00\x00aK\x01sbe.",
    "an unknown memo": b"\x80\x05]h\x07a.",
    "an empty stack": b"\x80\x05.",
    "protocol 99": b"\x80\x63].",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_are_protocol_errors(name):
    with pytest.raises(ProtocolError) as caught:
        decode(HOSTILE[name])
    assert len(str(caught.value)) < 500


def test_the_names_in_a_frame_are_never_looked_up(monkeypatch):
    looked_up = []
    # For these lines only: pytest itself imports while it takes the result of a test.
    with monkeypatch.context() as patched:
        patched.setattr("sys.modules", dict(sys.modules))
        patched.setattr("builtins.__import__", lambda name, *rest: looked_up.append(name))
        with pytest.raises(ProtocolError):
            decode(b"\x80\x05](cthis_module_does_not_exist\nname\ne.")
    assert looked_up == []


# The bytes before a frame


@pytest.mark.parametrize("size", [1, 5, 16 * 1024, 16 * 1024 + 1, 1 << 20])
def test_a_frame_is_what_multiprocessing_writes(size):
    reader, writer = os.pipe()
    with Connection(writer, readable=False) as connection, open(reader, "rb") as file:
        os.set_blocking(reader, False)
        if size < 60_000:
            connection.send_bytes(bytes(size))
            assert file.read() == frame_header(size) + bytes(size)
    assert frame_size(b"before" + frame_header(size), 6, size) == size


def test_a_frame_above_two_gib_has_the_long_header():
    assert frame_header(1 << 31) == struct.pack("!iQ", -1, 1 << 31)


@pytest.mark.parametrize("size", [0, -1, -2, -(1 << 31), 101, (1 << 31) - 1])
def test_a_size_that_cannot_be_is_refused_before_anything_is_read(size):
    with pytest.raises(ProtocolError):
        frame_size(struct.pack("!i", size), 0, 100)


# Large buffers


def large(*payloads: object) -> tuple[object, ...]:
    return (BROADCAST, ("a",), "x", None, list(payloads))


def test_the_frame_of_a_large_record_tells_the_sizes_of_its_buffers():
    buffers = [b"abc", bytearray(b"defgh")]
    frame, following = encode_large(large([b"meta", buffers]))
    records = decode(frame)
    assert records == [large([b"meta", [(3, True), (5, False)]])]
    assert large_sizes(records[0]) == [(3, True), (5, False)]
    assert following is buffers
    assert with_buffers(records[0], buffers) == large([b"meta", buffers])


def test_what_is_written_of_a_large_record_ends_with_its_buffers():
    record = large([b"meta", [b"abc", b"", bytearray(b"defgh")]])
    frame, _ = encode_large(record)
    written = [bytes(part) for part in parts([record])]
    assert written == [frame_header(len(frame)) + frame, b"abc", b"defgh"]


@pytest.mark.parametrize(
    "record",
    [
        (1,),
        large(b"payload"),
        large(()),
        large((), ()),
        [INTEREST, "x", True],
        (1, 2, 3, 4, 5),
    ],
)
def test_other_frames_are_followed_by_nothing(record):
    assert not is_large(record)


@pytest.mark.parametrize(
    "payload",
    [
        [],
        [b"meta"],
        [b"meta", [], 3],
        ["meta", []],
        [b"meta", None],
        [b"meta", 7],
        [b"meta", [7]],
        [b"meta", [(1,)]],
        [b"meta", [(-1, True)]],
        [b"meta", [(1.5, True)]],
        [b"meta", [(True, True)]],
        [b"meta", [(1, 1)]],
        [b"meta", ["ab"]],
    ],
)
def test_sizes_that_make_no_sense_are_refused(payload):
    with pytest.raises(ProtocolError):
        large_sizes(large(payload))


def test_a_size_that_is_too_long_to_be_shown_is_refused():
    with pytest.raises(ProtocolError, match="makes no sense"):
        large_sizes(large([b"meta", [(10**5000, True)]]))


def test_a_large_record_stands_alone_in_its_frame():
    with pytest.raises(ProtocolError):
        decode(encode([(1,), large([b"meta", [(3, True)]])]))


def test_the_plain_unpickler_finds_no_class():
    with pytest.raises(ProtocolError):
        wire._PlainUnpickler(io.BytesIO()).find_class("builtins", "int")
