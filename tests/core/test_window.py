"""Windows: whatever is cut, and wherever, nothing is lost, nothing comes twice, and the books are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import window
from ipevents._core.window import Handled, Written
from ipevents._exceptions import ProtocolError

BOUND = 1000


def test_frames_are_numbered_from_one_on():
    written = Written(BOUND)
    assert [written.write(1, 10, b"x") for _ in range(3)] == [1, 2, 3]


def test_what_is_acknowledged_is_given_back_and_counted():
    written = Written(BOUND)
    for events in (1, 2, 3):
        written.write(events, 10, events)
    assert written.acknowledge(2) == 3
    assert (written.kept_bytes, written.unacknowledged, written.again()) == (10, 3, [(3, 3)])
    assert written.acknowledge(2) == 0
    assert written.acknowledge(3) == 3


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_what_was_never_written_cannot_be_acknowledged_nor_less_than_before(number):
    written = Written(BOUND)
    written.write(1, 1, b"x")
    written.acknowledge(1)
    written.write(1, 1, b"y")
    with pytest.raises(ProtocolError):
        written.acknowledge(number)
    assert written.unacknowledged == 1


def test_beyond_the_bound_the_oldest_frames_are_forgotten_and_their_events_stay():
    written = Written(25)
    for number in range(1, 5):
        written.write(number, 10, number)
    assert (written.kept_bytes, written.can_resume, written.unacknowledged) == (20, False, 10)
    assert written.acknowledge(2) == 3
    assert (written.kept_bytes, written.can_resume) == (20, True)
    assert written.again() == [(3, 3), (4, 4)]
    assert written.lose() == 7
    assert (written.last, written.kept_bytes, written.unacknowledged, written.can_resume) == (0, 0, 0, True)


def test_a_private_link_keeps_counts_only():
    written = Written(0)
    written.write(5, 10, b"x")
    assert (written.kept_bytes, written.can_resume, written.unacknowledged) == (0, False, 5)
    assert written.acknowledge(1) == 5
    assert written.can_resume


def test_an_acknowledgement_is_due_after_so_many_frames_or_bytes():
    handled = Handled()
    due = [handled.handle(1) for _ in range(window.ACKNOWLEDGE_FRAMES)]
    assert due == [False] * (window.ACKNOWLEDGE_FRAMES - 1) + [True]
    assert (handled.is_unsaid, handled.say(), handled.is_unsaid) == (True, window.ACKNOWLEDGE_FRAMES, False)
    assert handled.handle(window.ACKNOWLEDGE_BYTES)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_frame_out_of_turn_is_refused(number):
    handled = Handled()
    handled.check(1)
    handled.handle(1)
    with pytest.raises(ProtocolError):
        handled.check(number)


class End:
    """One end of a session, with a sending and a receiving half, and what was handled here."""

    def __init__(self, bound):
        self.written, self.handled = Written(bound), Handled()
        self.sent = self.acknowledged = self.lost = 0
        self.got: list[int] = []

    def send(self):
        self.sent += 1
        return self.written.write(1, 10, self.sent), self.sent

    def receive(self, frame):
        number, value = frame
        self.handled.check(number)
        self.got.append(value)
        self.handled.handle(10)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "arrive", "acknowledge", "break"]), st.integers(0, 5)), max_size=200
)


@given(steps=STEPS, bound=st.sampled_from([0, 20, 10_000]))
def test_whatever_breaks_nothing_is_lost_twice_or_out_of_order_within_a_session(steps, bound):
    """Frames and acknowledgements are on their way until they arrive; a break loses all that are."""
    one, other = End(bound), End(bound)
    frames: list = []
    said: list[int] = []
    for what, count in steps:
        if what == "send":
            frames += [one.send() for _ in range(count)]
        elif what == "arrive":
            for frame in frames[:count]:
                other.receive(frame)
            del frames[:count]
            for number in said[:count]:
                one.acknowledged += one.written.acknowledge(number)
            del said[:count]
        elif what == "acknowledge" and other.handled.is_unsaid:
            said.append(other.handled.say())
        elif what == "break":
            said.clear()
            one.acknowledged += one.written.acknowledge(other.handled.last)
            if one.written.can_resume:
                frames = one.written.again()
            else:  # another session
                one.lost += one.written.lose()
                other.handled.begin_again()
                frames = []
        assert one.sent == one.acknowledged + one.written.unacknowledged + one.lost
        assert one.written.kept_bytes <= bound
        assert other.got == sorted(set(other.got))
        assert one.acknowledged <= len(other.got) <= one.sent - one.lost
    if not one.lost:
        for frame in frames:
            other.receive(frame)
        assert other.got == list(range(1, one.sent + 1))
