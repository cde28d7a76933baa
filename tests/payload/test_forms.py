from __future__ import annotations

import types

import numpy
import pytest

from ipevents._core import wire
from ipevents._core.messages import BROADCAST
from ipevents._exceptions import UnreadablePayload
from ipevents._payload.forms import LARGE_BYTES, decode, encode, own, size_of

LARGE = bytes(range(256)) * (LARGE_BYTES // 256)


def carried(payload):
    """The payload as it arrives: over the wire, buffers as the bytes that follow the frame."""
    record = (BROADCAST, ("a",), "x", None, [payload])
    if type(payload) is not list:
        return wire.decode(wire.encode([record]))[0][4][0]
    frame, buffers = wire.encode_large(record)
    (arrived,) = wire.decode(frame)
    sizes = wire.large_sizes(arrived)
    raw = [
        bytes(item) if readonly else bytearray(item)
        for item, (_, readonly) in zip(buffers, sizes, strict=True)
    ]
    assert [len(item) for item in raw] == [size for size, _ in sizes]
    return wire.with_buffers(arrived, raw)[4][0]


def sent(*args, **kwargs):
    """The arguments as a listener elsewhere gets them."""
    return decode(carried(encode(args, kwargs)[0]))


# Plain values

PLAIN = [(), (1,), ("text",), (b"bytes",), (1.5, True, None), (-(1 << 255), (1 << 255)), ("\ud800",), ("",)]


@pytest.mark.parametrize("args", PLAIN)
def test_plain_values_need_no_pickle_of_their_own(args):
    payload, _ = encode(args, {})
    assert payload is args
    assert sent(*args) == (args, {})


class Text(str):
    """A str that is no plain one."""


@pytest.mark.parametrize(
    "args",
    [((1, 2),), ([1],), ({"a": 1},), ({1},), (1 << 256,), (Text("x"),), (types.SimpleNamespace(a=1),), (1j,)],
)
def test_other_values_are_pickled(args):
    payload, size = encode(args, {})
    assert type(payload) is bytes
    assert size == len(payload)
    arrived, kwargs = sent(*args)
    assert (arrived, kwargs) == (args, {})
    assert [type(item) for item in arrived] == [type(item) for item in args]


def test_keywords_are_pickled():
    assert sent(1, key="value") == ((1,), {"key": "value"})


def test_much_text_is_pickled_once():
    payload, size = encode(("€" * 40_000,), {})
    assert type(payload) is bytes
    assert size == len(payload) > 120_000  # exactly what travels, not the number of characters
    assert sent("€" * 40_000) == (("€" * 40_000,), {})


def test_bytes_that_are_not_large_travel_in_the_frame_as_they_are():
    payload, size = encode((1, b"x" * 100_000, "text"), {})
    assert payload == (1, b"x" * 100_000, "text")
    assert size == size_of(payload) == 100_028
    assert sent(1, b"x" * 100_000, "text") == ((1, b"x" * 100_000, "text"), {})


@pytest.mark.parametrize("size", [LARGE_BYTES - 17, LARGE_BYTES - 8, LARGE_BYTES - 1, LARGE_BYTES])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_around_the_limit_all_arrives_as_what_it_was(kind, size):
    ((arrived,), _) = sent(kind(size))
    assert (type(arrived), arrived) == (kind, bytes(size))


def test_an_array_within_the_pickle_arrives_writable():
    array = numpy.arange(10_000.0)
    assert 32 * 1024 < array.nbytes < LARGE_BYTES
    ((arrived,), _) = sent(array)
    arrived[0] = -1.0
    assert (arrived[1:] == array[1:]).all()


def test_the_size_is_close_to_what_travels():
    for args in [(), (1, 2.0), ("text",) * 100, (b"x" * 1000,), ([1] * 1000,), (LARGE, LARGE)]:
        payload, size = encode(args, {})
        assert size == size_of(payload)
        assert size_of(carried(payload)) == size


# Large buffers


def test_large_bytes_travel_beside_the_pickle_and_arrive_as_bytes():
    payload, size = encode((LARGE,), {})
    assert payload[1] == [LARGE]
    assert payload[1][0] is LARGE, "immutable, so not copied"
    assert size > len(LARGE)
    ((arrived,), _) = sent(LARGE)
    assert type(arrived) is bytes
    assert arrived == LARGE


def test_a_large_bytearray_arrives_as_a_bytearray():
    ((arrived,), _) = sent(bytearray(LARGE))
    assert type(arrived) is bytearray
    assert arrived == LARGE


def test_large_keywords_travel_beside_the_pickle_as_well():
    payload, _ = encode((), {"data": LARGE})
    assert len(payload[1]) == 1
    assert sent(data=LARGE) == ((), {"data": LARGE})


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_arrives_and_is_writable_if_it_was(writeable, order):
    array = numpy.asarray(numpy.arange(20_000.0).reshape(100, 200), order=order)
    array.flags.writeable = writeable
    ((arrived,), _) = sent(array)
    assert (arrived == array).all()
    assert arrived.flags.writeable is writeable
    if writeable:
        arrived[0, 0] = 7


@pytest.mark.parametrize(
    "array", [numpy.zeros(0), numpy.arange(3), numpy.arange(40_000)[::2], numpy.array(5)]
)
def test_small_and_scattered_arrays_arrive_as_well(array):
    ((arrived,), _) = sent(array)
    assert (arrived == array).all()


def test_arrays_within_other_values_arrive():
    ((arrived,), _) = sent({"a": [numpy.arange(20_000), numpy.ones(20_000)]})
    assert (arrived["a"][0] == numpy.arange(20_000)).all()
    assert (arrived["a"][1] == 1).all()


@pytest.mark.parametrize("large", [numpy.zeros(20_000), bytearray(LARGE_BYTES)])
def test_what_the_sender_changes_afterwards_is_not_sent(large):
    payload, _ = encode((large,), {})
    large[0] = 1
    assert decode(carried(payload))[0][0][0] == 0


@pytest.mark.parametrize("value", [[1], {"a": 1}, numpy.zeros(3)])
def test_small_values_are_taken_as_they_are_at_the_send(value):
    payload, _ = encode((value,), {})
    value[0] = 5
    assert decode(payload)[0][0] is not value
    assert 5 not in (decode(payload)[0][0] if not isinstance(value, dict) else decode(payload)[0][0].values())


def test_what_a_listener_changes_is_not_in_what_is_passed_on():
    payload = carried(encode((numpy.zeros(20_000),), {})[0])
    ((here,), _) = decode(own(payload))
    here[0] = 1
    assert decode(payload)[0][0][0] == 0


@pytest.mark.parametrize("payload", [(), (1,), b"pickle", [b"meta", [b"readonly"]]])
def test_a_payload_without_writable_buffers_is_its_own(payload):
    assert own(payload) == payload


# What cannot be read


class Breaks:
    """Can be pickled, not unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_be_unpickled_is_one_exception():
    with pytest.raises(UnreadablePayload, match="no number") as caught:
        sent(Breaks())
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        b"\x80\x05N.",
        [b"", []],
        [b"\x80\x05\x97.", []],
        [b"meta", [(1, True)]],
        [],
        None,
        5,
        "text",
        {},
    ],
)
def test_a_payload_that_is_none_is_unreadable(payload):
    with pytest.raises(UnreadablePayload):
        decode(payload)


@pytest.mark.parametrize(
    "payload", [None, 5, [], [b"meta"], [b"meta", [(1, True)]], [b"meta", ["text"]], [b"", None]]
)
def test_a_payload_that_is_none_has_a_size_and_can_be_passed_on(payload):
    assert size_of(payload) >= 0
    assert own(payload) is not None or payload is None


def test_nothing_large_is_copied_into_the_pickle():
    meta, _ = encode((LARGE, numpy.zeros(20_000)), {})[0]
    assert len(meta) < 1000
    assert numpy.zeros(20_000).nbytes >= LARGE_BYTES
