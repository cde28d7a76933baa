"""Windows: whatever is cut, and wherever, nothing is lost, nothing comes twice, and the books are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import window
from ipevents._core.books import DROPPED, FORWARDED, NONE, UNHEARD, UNREADABLE, minus, more, plus
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
    assert written.acknowledge(2, NONE) == (3, NONE)
    assert (written.kept_bytes, written.events, again(written)) == (10, 3, [(3, 3)])
    assert written.acknowledge(2, NONE) == (0, NONE)
    assert written.acknowledge(1, NONE) == (0, NONE)
    assert written.acknowledge(3, NONE) == (3, NONE)
    assert (written.kept_bytes, written.events, written.last) == (0, 0, 3)


@pytest.mark.parametrize("number", [-1, 3, 10**40, True, 1.0, "1", None])
def test_what_was_never_written_cannot_be_acknowledged(number):
    written = Written()
    write(written, 1)
    written.acknowledge(1, NONE)
    write(written, 1)
    with pytest.raises(ProtocolError, match="2 were written"):
        written.acknowledge(number, NONE)
    assert written.events == 1


def test_beyond_the_bound_the_oldest_frames_are_forgotten_and_their_events_stay():
    written = Written()
    for number in range(1, 5):
        write(written, number, records=number)
        written.trim(25)
    assert (written.kept_bytes, written.can_resume, written.events) == (20, False, 10)
    assert written.acknowledge(2, NONE) == (3, NONE)
    assert (written.kept_bytes, written.can_resume) == (20, True)
    assert again(written) == [(3, 3), (4, 4)]
    assert written.lose() == 7
    assert (written.last, written.kept_bytes, written.events, written.can_resume) == (0, 0, 0, True)


def test_a_private_link_keeps_counts_only():
    written = Written()
    write(written, 5, 0, None)
    written.trim(0)
    assert (written.kept_bytes, written.events) == (0, 5)
    assert written.acknowledge(1, NONE) == (5, NONE)


def test_an_acknowledgement_is_due_after_so_many_frames_or_bytes():
    handled = Handled()
    due = [handled.handle(1, NONE) for _ in range(window.ACKNOWLEDGE_FRAMES)]
    assert due == [False] * (window.ACKNOWLEDGE_FRAMES - 1) + [True]
    said = (window.ACKNOWLEDGE_FRAMES, NONE)
    assert (handled.is_unsaid, handled.say(), handled.is_unsaid) == (True, said, False)
    assert handled.handle(window.ACKNOWLEDGE_BYTES, NONE)


# What became of what was acknowledged


def test_a_session_begins_without_outcomes_and_has_those_that_were_added_since():
    handled = Handled()
    handled.begin((1, 2, 3, 4))
    assert handled.say() == (0, NONE)
    handled.handle(1, (1, 2, 3, 4))
    assert handled.say() == (1, NONE)
    handled.handle(1, (2, 2, 3, 6))
    handled.handle(1, (2, 3, 3, 6))
    assert handled.say() == (3, (1, 1, 0, 2))


def test_a_session_that_goes_on_with_another_connection_keeps_its_outcomes():
    handled = Handled()
    handled.begin((1, 0, 0, 0))
    handled.handle(1, (2, 0, 0, 0))
    handled.begin((2, 0, 0, 0))
    assert handled.say() == (1, (1, 0, 0, 0))


def test_what_was_handled_and_what_became_of_it_is_one_object_that_is_never_changed():
    """Any thread may read it while the reader thread goes on: both are of the same moment."""
    handled = Handled()
    handled.begin((1, 0, 0, 0))
    before = handled.done
    assert before == (0, (1, 0, 0, 0))
    handled.handle(1, (2, 0, 0, 0))
    assert (before, handled.done) == ((0, (1, 0, 0, 0)), (1, (2, 0, 0, 0)))


def test_nothing_is_to_be_said_of_what_is_withheld():
    handled = Handled()
    handled.begin(NONE)
    handled.is_withheld = True
    for _ in range(window.ACKNOWLEDGE_FRAMES + 1):
        assert not handled.handle(window.ACKNOWLEDGE_BYTES, NONE)
    assert not handled.is_unsaid
    handled.releases = True  # the outcomes of what was withheld come with the next frame
    assert not handled.is_unsaid
    assert handled.handle(1, (1, 0, 0, 0)), "as much as the rest waited for it"
    assert (handled.is_unsaid, handled.is_withheld) == (True, False)
    assert handled.say() == (window.ACKNOWLEDGE_FRAMES + 2, (1, 0, 0, 0))


def test_the_outcomes_of_what_is_acknowledged_are_those_that_were_not_known_before():
    written = Written()
    for events in (4, 0, 4):
        write(written, events)
    assert written.acknowledge(1, (1, 2, 0, 1)) == (4, (1, 2, 0, 1))
    assert written.acknowledge(1, (1, 2, 0, 1)) == (0, NONE)
    assert written.acknowledge(2, (1, 2, 0, 1)) == (0, NONE)
    assert written.acknowledge(3, (1, 2, 3, 1)) == (4, (0, 0, 3, 0))


def test_the_next_session_begins_without_outcomes_at_the_other_end_as_well():
    written = Written()
    write(written, 1)
    written.acknowledge(1, (0, 0, 0, 1))
    written.lose()
    write(written, 1)
    assert written.acknowledge(1, NONE) == (1, NONE)


IMPOSSIBLE = {
    "too many": (1, 1, 1, 2),
    "too many of one kind": (1, 4, 1, 0),
    "more than a number of a machine holds": (1, 1, 10**40, 0),
    "negative": (1, 1, 1, -1),
    "decreasing": (0, 1, 1, 1),
    "decreasing beside more than there were": (0, 5, 0, 0),
    "too few": (1, 1, 1),
    "one too many": (1, 1, 1, 0, 0),
    "no kinds": (),
    "a list": [1, 1, 1, 1],
    "texts": ("1", "1", "1", "1"),
    "a text": "1111",
    "bytes": b"\1\1\1\1",
    "a truth": (1, 2, True, 0),
    "a float": (1, 2, 0.0, 0),
    "not a number": (1, 2, float("nan"), 0),
    "nothing of a kind": (1, 2, None, 0),
    "none": None,
    "a number": 1,
    "a dict": {0: 1},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_outcomes_that_cannot_be_are_refused_and_change_nothing(name):
    written = Written()
    write(written, 2)
    written.acknowledge(1, (1, 1, 0, 0))
    write(written, 2, records="second")
    write(written, 2, records="third")
    before = (written.acknowledged, written.events, written.kept_bytes, again(written))
    with pytest.raises(ProtocolError, match="it says of what it acknowledges that it became"):
        written.acknowledge(2, IMPOSSIBLE[name])
    assert (written.acknowledged, written.events, written.kept_bytes, again(written)) == before
    assert written.acknowledge(3, (1, 2, 1, 1)) == (4, (0, 1, 1, 1))


def test_frames_may_be_written_while_it_is_looked_at_how_many_events_are_acknowledged():
    written = Written()

    class Events(int):
        """When they are added up, the thread that writes is faster."""

        def __radd__(self, other):
            write(written, 1)
            return other + int(self)

    for _ in range(3):
        write(written, Events(1))
    assert written.acknowledge(2, (1, 1, 0, 0))[1] == (1, 1, 0, 0)
    assert written.events >= 1


def test_outcomes_without_anything_that_is_acknowledged_are_refused():
    written = Written()
    write(written, 2)
    written.acknowledge(1, (1, 0, 0, 0))
    write(written, 2)
    with pytest.raises(ProtocolError, match="became"):
        written.acknowledge(1, (2, 0, 0, 0))
    assert written.acknowledge(2, (2, 0, 0, 0)) == (2, (1, 0, 0, 0))


@pytest.mark.parametrize("outcomes", [NONE, (1, 0, 0, 0), (3, 0, 0, 0), (9, 9, 9, 9), (-1, 0, 0, 0), None])
def test_an_acknowledgement_in_a_frame_that_was_written_again_is_older_and_changes_nothing(outcomes):
    written = Written()
    for _ in range(3):
        write(written, 2)
    written.acknowledge(2, (1, 1, 0, 0))
    assert written.acknowledge(1, outcomes) == (0, NONE)
    assert (written.acknowledged, written.events) == (2, 2)
    assert written.acknowledge(3, (1, 2, 0, 0)) == (2, (0, 1, 0, 0))


def test_a_frame_that_was_not_written_brings_no_outcomes():
    written = Written()
    write(written, 2)
    with pytest.raises(ProtocolError, match="1 were written"):
        written.acknowledge(2, (1, 0, 0, 0))
    assert written.acknowledge(1, (0, 1, 0, 0)) == (2, (0, 1, 0, 0))


@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    number=st.integers(0, 6),
    outcomes=st.tuples(*[st.integers(-1, 4)] * 4),
    known=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_outcomes_are_taken_exactly_where_they_can_be(sizes, number, outcomes, known):
    written = Written()
    write(written, sum(known))
    written.acknowledge(1, known)
    for size in sizes:
        write(written, size)
    number = 1 + min(number, len(sizes))
    added = minus(outcomes, known)
    left = sum(sizes)
    if min(added) < 0 or sum(added) > sum(sizes[: number - 1]):
        with pytest.raises(ProtocolError):
            written.acknowledge(number, outcomes)
        assert (written.acknowledged, written.events) == (1, left)
        added, outcomes, number = NONE, known, 1
    else:
        assert written.acknowledge(number, outcomes) == (sum(sizes[: number - 1]), added)
    assert written.acknowledge(number, outcomes) == (0, NONE)
    assert written.events == left - sum(sizes[: number - 1])


# Both ends


class End:
    """One end of a session, with a sending and a receiving half, and what was handled here."""

    def __init__(self, bound):
        self.written, self.handled, self.bound = Written(), Handled(), bound
        self.sent = self.acknowledged = self.lost = 0
        self.became = NONE  # of what was acknowledged
        self.outcomes = NONE  # of what was received
        self.got: list[int] = []

    def send(self):
        self.sent += 1
        number = write(self.written, 1, records=self.sent)
        self.written.trim(self.bound)
        return number, self.sent

    def receive(self, frame):
        number, value = frame
        assert number == self.handled.done[0] + 1
        self.got.append(value)
        place = (None, UNHEARD, UNREADABLE, FORWARDED, DROPPED)[value % 5]
        if place is not None:
            self.outcomes = more(self.outcomes, place, 1)
        self.handled.handle(10, self.outcomes)

    def take(self, number, outcomes):
        events, became = self.written.acknowledge(number, outcomes)
        self.acknowledged += events
        self.became = plus(self.became, became)


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "arrive", "acknowledge", "break"]), st.integers(0, 5)), max_size=200
)


@given(steps=STEPS, bound=st.sampled_from([0, 20, 10_000]))
def test_whatever_breaks_nothing_is_lost_twice_or_out_of_order_within_a_session(steps, bound):
    """Frames and acknowledgements are on their way until they arrive; a break loses all that are."""
    one, other = End(bound), End(bound)
    other.handled.begin(other.outcomes)
    frames: list = []
    said: list = []
    for what, count in steps:
        if what == "send":
            frames += [one.send() for _ in range(count)]
        elif what == "arrive":
            for frame in frames[:count]:
                other.receive(frame)
            del frames[:count]
            for number, outcomes in said[:count]:
                one.take(number, outcomes)
            del said[:count]
        elif what == "acknowledge" and other.handled.is_unsaid:
            said.append(other.handled.say())
        elif what == "break":
            said.clear()
            one.take(*other.handled.say())
            if one.written.can_resume:
                frames = again(one.written)
            else:  # another session
                one.lost += one.written.lose()
                other.handled = Handled()
                frames = []
            other.handled.begin(other.outcomes)
        assert one.sent == one.acknowledged + one.written.events + one.lost
        assert one.written.kept_bytes <= bound
        assert other.got == sorted(set(other.got))
        assert one.acknowledged <= len(other.got) <= one.sent - one.lost
        known = [value % 5 for value in other.got[: one.acknowledged]]
        assert one.became == tuple(known.count(place) for place in (1, 2, 3, 4))
    if not one.lost:
        for frame in frames:
            other.receive(frame)
        assert other.got == list(range(1, one.sent + 1))
