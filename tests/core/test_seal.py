"""Seals of frames: what is not exactly what was sent, in its turn and direction, has another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.seal import SEAL_BYTES, Seals, direction_keys

KEY = b"the key of the tree, of any length"
CLIENT = direction_keys(KEY, b"a transcript", is_client=True)
SERVER = direction_keys(KEY, b"a transcript", is_client=False)
NUMBERS = st.integers(0, 2**64 - 1)


def test_what_one_end_sends_with_the_other_receives_with():
    assert (CLIENT.sends, CLIENT.receives) == (SERVER.receives, SERVER.sends)
    assert CLIENT.sends != CLIENT.receives


@pytest.mark.parametrize(
    "other",
    [
        direction_keys(KEY, b"another transcript", is_client=True),
        direction_keys(b"another key, of the same length...", b"a transcript", is_client=True),
    ],
    ids=["transcript", "key"],
)
def test_each_connection_and_each_key_has_keys_of_its_own(other):
    assert not {*other} & {*CLIENT}


@given(NUMBERS, st.binary(max_size=200))
def test_the_other_end_knows_a_seal(number, frame):
    seal = Seals(CLIENT.sends).of_frame(number, frame)
    assert len(seal) == SEAL_BYTES
    assert Seals(SERVER.receives).is_frame(number, memoryview(frame), seal)


@given(NUMBERS, st.binary(min_size=1, max_size=200), st.data())
def test_a_frame_that_was_changed_anywhere_is_refused(number, frame, data):
    seals = Seals(CLIENT.sends)
    seal = seals.of_frame(number, frame)
    at = data.draw(st.integers(0, len(frame) - 1))
    changed = bytearray(frame)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert not seals.is_frame(number, changed, seal)
    assert not seals.is_frame(number, frame[:at], seal)  # cut
    assert not seals.is_frame(number, frame + b"\0", seal)
    at = data.draw(st.integers(0, SEAL_BYTES - 1))
    forged = bytearray(seal)
    forged[at] ^= data.draw(st.integers(1, 255))
    assert not seals.is_frame(number, frame, bytes(forged))
    assert not seals.is_frame(number, frame, seal[:at])


@given(NUMBERS, NUMBERS, st.binary(max_size=50))
def test_a_frame_is_refused_under_another_number_and_sent_back(number, other, frame):
    seal = Seals(CLIENT.sends).of_frame(number, frame)
    if other != number:
        assert not Seals(SERVER.receives).is_frame(other, frame, seal)
    assert not Seals(CLIENT.receives).is_frame(number, frame, seal)


@given(NUMBERS, st.lists(st.binary(max_size=50), max_size=4))
def test_buffers_have_a_seal_of_their_own(number, buffers):
    seals = Seals(CLIENT.sends)
    seal = seals.of_buffers(number, buffers)
    assert seals.are_buffers(number, map(memoryview, buffers), seal)
    assert not seals.is_frame(number, b"".join(buffers), seal)
    if any(buffers):
        changed = [bytes(byte ^ 1 for byte in buffer) for buffer in buffers]
        assert not seals.are_buffers(number, changed, seal)
