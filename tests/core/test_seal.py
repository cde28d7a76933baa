"""Seals of frames: what is not exactly what was sent, in its turn and direction, has another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.seal import PREFIX_BYTES, SEAL_BYTES, Seals, direction_keys
from ipevents._exceptions import Forged

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
def test_the_other_end_opens_a_frame(number, frame):
    sealed = Seals(CLIENT.sends).prefix(number, frame) + frame
    assert len(sealed) == PREFIX_BYTES + len(frame)
    assert Seals(SERVER.receives).opened(number, sealed) == frame


@given(NUMBERS, st.binary(min_size=1, max_size=200), st.data())
def test_a_frame_that_was_changed_anywhere_is_refused(number, frame, data):
    sealed = bytearray(Seals(CLIENT.sends).prefix(number, frame) + frame)
    opens = Seals(SERVER.receives)
    at = data.draw(st.integers(0, len(sealed) - 1))
    for forged in (sealed[:at], sealed[at:] if at else b"", sealed + b"\0"):
        with pytest.raises(Forged):
            opens.opened(number, bytes(forged))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Forged):
        opens.opened(number, bytes(sealed))


@given(NUMBERS, NUMBERS, st.binary(max_size=50))
def test_a_frame_is_refused_under_another_number_and_sent_back(number, other, frame):
    sealed = Seals(CLIENT.sends).prefix(number, frame) + frame
    if other != number:
        with pytest.raises(Forged):
            Seals(SERVER.receives).opened(other, sealed)
    with pytest.raises(Forged):
        Seals(CLIENT.receives).opened(number, sealed)


@given(NUMBERS, st.lists(st.binary(max_size=50), max_size=4))
def test_buffers_have_a_seal_of_their_own(number, buffers):
    seal = Seals(CLIENT.sends).of_buffers(number, buffers)
    opens = Seals(SERVER.receives)
    assert len(seal) == SEAL_BYTES
    opens.check_buffers(number, map(memoryview, buffers), seal)
    assert Seals(CLIENT.sends).prefix(number, b"".join(buffers))[-SEAL_BYTES:] != seal
    changed = [bytes(byte ^ 1 for byte in buffer) for buffer in buffers]
    for forged in (changed, buffers[:-1], [*buffers, b"1"]):
        if b"".join(forged) != b"".join(buffers):
            with pytest.raises(Forged):
                opens.check_buffers(number, forged, seal)
    with pytest.raises(Forged):
        opens.check_buffers(number, buffers, seal[:-1])
