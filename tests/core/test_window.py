"""Windows: whatever is cut, and wherever, nothing is lost, nothing comes twice, and the books are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import window
from ipevents._core.window import Handled, Written
from ipevents._exceptions import ProtocolError

BOUND = 1000


def write(written, events, size=10, records=()):
    """What the thread that writes does."""
    written.frames += ((events, size, records),)
    written.added += size
    return written.last


def again(written):
    """The numbers and records of what is to be written again."""
    return [(written.acknowledged + at, frame[2]) for at, frame in enumerate(written.frames, 1)]


def test_frames_are_numbered_from_one_on():
    written = Written()
    assert [write(written, 1) for _ in range(3)] == [1, 2, 3]


def test_what_is_acknowledged_is_given_back_and_counted():
    written = Written()
    for events in (1, 2, 3):
        write(written, events, records=events)
    assert written.acknowledge(2) == 3
    assert (written.kept_bytes, written.events, again(written)) == (10, 3, [(3, 3)])
    assert written.acknowledge(2) == 0
    assert written.acknowledge(1) == 0
    assert written.acknowledge(3) == 3
    assert (written.kept_bytes, written.events, written.last) == (0, 0, 3)


@pytest.mark.parametrize("number", [-1, 3, 10**40, True, 1.0, "1", None])
def test_what_was_never_written_cannot_be_acknowledged(number):
    written = Written()
    write(written, 1)
    written.acknowledge(1)
    write(written, 1)
    with pytest.raises(ProtocolError, match="2 were written"):
        written.acknowledge(number)
    assert written.events == 1


def test_beyond_the_bound_the_oldest_frames_are_forgotten_and_their_events_stay():
    written = Written()
    for number in range(1, 5):
        write(written, number, records=number)
        written.trim(25)
    assert (written.kept_bytes, written.can_resume, written.events) == (20, False, 10)
    assert written.acknowledge(2) == 3
    assert (written.kept_bytes, written.can_resume) == (20, True)
    assert again(written) == [(3, 3), (4, 4)]
    assert written.lose() == 7
    assert (written.last, written.kept_bytes, written.events, written.can_resume) == (0, 0, 0, True)


def test_a_private_link_keeps_counts_only():
    written = Written()
    write(written, 5, 0, None)
    written.trim(0)
    assert (written.kept_bytes, written.events) == (0, 5)
    assert written.acknowledge(1) == 5


def test_an_acknowledgement_is_due_after_so_many_frames_or_bytes():
    handled = Handled()
    due = [handled.handle(1) for _ in range(window.ACKNOWLEDGE_FRAMES)]
    assert due == [False] * (window.ACKNOWLEDGE_FRAMES - 1) + [True]
    assert (handled.is_unsaid, handled.say(), handled.is_unsaid) == (True, window.ACKNOWLEDGE_FRAMES, False)
    assert handled.handle(window.ACKNOWLEDGE_BYTES)


class End:
    """One end of a session, with a sending and a receiving half, and what was handled here."""

    def __init__(self, bound):
        self.written, self.handled, self.bound = Written(), Handled(), bound
        self.sent = self.acknowledged = self.lost = 0
        self.got: list[int] = []

    def send(self):
        self.sent += 1
        number = write(self.written, 1, records=self.sent)
        self.written.trim(self.bound)
        return number, self.sent

    def receive(self, frame):
        number, value = frame
        assert number == self.handled.last + 1
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
                frames = again(one.written)
            else:  # another session
                one.lost += one.written.lose()
                other.handled = Handled()
                frames = []
        assert one.sent == one.acknowledged + one.written.events + one.lost
        assert one.written.kept_bytes <= bound
        assert other.got == sorted(set(other.got))
        assert one.acknowledged <= len(other.got) <= one.sent - one.lost
    if not one.lost:
        for frame in frames:
            other.receive(frame)
        assert other.got == list(range(1, one.sent + 1))
