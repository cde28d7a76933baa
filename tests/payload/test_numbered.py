"""The two numbers before the payload of a request or an answer, in each form of payloads."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._exceptions import ProtocolError
from ipevents._payload import forms
from ipevents._payload.numbered import NUMBERS_BYTES, numbered, numbers_of, without_numbers

PAYLOADS = st.one_of(
    st.lists(st.none() | st.booleans() | st.integers() | st.text() | st.binary()).map(tuple),
    st.binary(),
    st.tuples(st.binary(), st.lists(st.tuples(st.binary(), st.booleans()))).map(list),
)
NUMBERS = st.integers(1, (1 << 63) - 1)
OTHERS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(NUMBERS, OTHERS, PAYLOADS)
def test_what_was_numbered_has_its_numbers_and_its_form_and_comes_out_as_it_was(number, other, payload):
    whole = numbered(number, other, payload)
    assert type(whole) is type(payload)
    assert numbers_of(whole) == (number, other)
    assert without_numbers(whole) == payload


@pytest.mark.parametrize(
    "payload", [(), ("x", 1), b"", b"a pickle", [b"meta", [(b"large", True)]]], ids=range(5)
)
@pytest.mark.parametrize("number", [1, 2, (1 << 63) - 1])
@pytest.mark.parametrize("other", [0, -(1 << 63), (1 << 63) - 1])
def test_the_smallest_and_the_largest_numbers_are_kept(payload, number, other):
    assert numbers_of(numbered(number, other, payload)) == (number, other)


@pytest.mark.parametrize("payload", [("x", 1), b"a pickle", [b"meta", [(b"large", True)]]], ids=range(3))
def test_the_numbers_take_no_more_than_is_reckoned(payload):
    assert forms.size_of(numbered(5, 7, payload)) <= forms.size_of(payload) + NUMBERS_BYTES


def test_numbering_changes_nothing_in_the_payload_itself():
    buffers = [(b"large", True)]
    payload = [b"meta", buffers]
    whole = numbered(1, 2, payload)
    assert payload == [b"meta", buffers]
    assert whole[1] is buffers  # large buffers are not copied


def packed(number, other):
    return struct.pack("!Qq", number, other)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        1,
        "text",
        (),
        (1,),
        (1, None),
        (1, 2.0),
        (1.0, 2),
        (True, 2),
        (1, True),
        ("1", 2),
        (b"1", 2),
        (-1, 2),
        (1 << 63, 2),
        (1, 1 << 63),
        (1, -(1 << 63) - 1),
        (10**1000, 2),
        ((1, 2), 3),
        b"",
        bytes(NUMBERS_BYTES - 1),
        packed(1 << 63, 0),
        packed((1 << 64) - 1, 0),
        bytearray(100),
        [],
        [bytes(NUMBERS_BYTES)],
        [bytes(NUMBERS_BYTES), []] * 2,
        [bytes(NUMBERS_BYTES - 1), []],
        [bytes(NUMBERS_BYTES), ()],
        [bytes(NUMBERS_BYTES), None],
        [(1, 2), []],
        [None, []],
        [packed(1 << 63, 0), []],
        {1: 2},
    ],
    ids=range(33),
)
def test_what_has_no_such_numbers_is_refused(payload):
    with pytest.raises(ProtocolError, match="without its numbers"):
        numbers_of(payload)


def test_the_error_is_short_whatever_came():
    with pytest.raises(ProtocolError) as caught:
        numbers_of(("x" * 1_000_000, 1))
    assert len(str(caught.value)) < 200
