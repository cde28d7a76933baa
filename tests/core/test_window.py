"""Windows: whatever is cut, and wherever, nothing is lost, nothing comes twice, and the books are right."""

from __future__ import annotations

import collections
import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupting import Interruption

from ipevents._core import window
from ipevents._core.books import DROPPED, FORWARDED, NONE, UNHEARD, UNREADABLE, minus, more, plus
from ipevents._core.window import Handled, Written
from ipevents._exceptions import ProtocolError

BOUND = 1000


def write(written, events, size=10, records=()):
    """What the thread that writes does."""
    total = written.total + events
    written.frames += ((total, size, records),)
    written.added += size
    written.total = total
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


# Very many frames


class Untouched(collections.deque):
    """Frames of which the length and the ends may be asked for, and nothing that takes longer."""

    def __iter__(self):
        raise AssertionError("each frame was looked at")

    def __getitem__(self, at):
        assert at in (0, len(self) - 1), "a frame in the middle was looked for"
        return super().__getitem__(at)


def test_no_step_takes_longer_where_there_are_more_frames():
    written = Written()
    written.frames = Untouched()
    for _ in range(1000):
        write(written, 2)
    assert written.events == 2000
    assert written.acknowledge(1000, (1, 2, 3, 4)) == (2000, (1, 2, 3, 4))
    for _ in range(10):
        write(written, 2)
    written.trim(50)
    assert (written.events, written.kept_bytes) == (20, 50)
    assert written.lose() == 20


@pytest.fixture
def few(monkeypatch):
    """So few numbers that a test can have more frames."""
    monkeypatch.setattr(window, "MOST_COUNTED", 4)
    monkeypatch.setattr(window, "MOST_MARKS", 8)


def keep_none(written):
    """What the thread that writes does, where the link keeps numbers only."""
    write(written, 3, 0, None)
    written.count_only()


def entries(written):
    return len(written.frames) + len(written._marks)


@pytest.mark.parametrize("is_kept", [False, True], ids=["numbers only", "beyond the bound"])
def test_of_a_peer_that_acknowledges_nothing_no_more_is_kept_than_of_another_one(few, is_kept):
    written = Written()
    for number in range(1, 1001):
        if is_kept:
            write(written, 3)
            written.trim(40)
        else:
            keep_none(written)
        assert entries(written) <= 4 + 8 + 2
        assert (written.last, written.events) == (number, 3 * number)
    assert not written.can_resume
    assert written.acknowledge(1000, (0, 0, 0, 9)) == (3000, (0, 0, 0, 9))
    assert (written.last, written.events, written.is_owed, written.can_resume) == (1000, 0, False, True)
    keep_none(written)
    assert written.acknowledge(1001, (0, 0, 0, 9)) == (3, NONE)


def test_within_a_run_as_much_is_acknowledged_as_is_certain_and_the_rest_follows(few):
    written = Written()
    for _ in range(100):
        keep_none(written)
    ends = [number for number, _ in written._marks]
    assert ends[:2] == [16, 32]
    assert written.acknowledge(20, NONE) == (48, NONE), "as much as is known of the first run"
    assert written.acknowledge(21, (0, 3, 0, 0)) == (3, (0, 3, 0, 0)), "of these it is certain, too"
    assert written.acknowledge(31, (0, 3, 0, 0)) == (0, NONE)
    for impossible in ((0, 4, 0, 0), (0, 96, 0, 0)):  # no frame more is acknowledged
        with pytest.raises(ProtocolError, match="became"):
            written.acknowledge(31, impossible)
    assert written.acknowledge(20, (0, 2, 0, 0)) == (0, NONE), "an older one"
    assert written.acknowledge(32, (0, 6, 0, 0)) == (45, (0, 3, 0, 0))
    assert written.events == 300 - 96
    assert written.lose() == 204
    assert (written.last, written.events, written.is_owed) == (0, 0, False)


@pytest.mark.parametrize("is_kept", [False, True], ids=["numbers only", "beyond the bound"])
def test_wherever_a_signal_handler_raises_no_frame_and_no_event_is_forgotten(few, is_kept):
    place = 0
    while True:
        place += 1
        written = Written()
        for _ in range(40):
            write(written, 3, 10 * is_kept)
        bound = functools.partial(written.trim, 20) if is_kept else written.count_only
        interruption = Interruption(place)
        if not interruption.run(bound):
            break
        assert (written.last, written.events) == (40, 120), interruption.where
        bound()
        assert (written.last, written.events, written.kept_bytes) == (40, 120, 20 * is_kept)
        assert entries(written) <= 4 + 8 + 2
        assert written.acknowledge(40, (1, 1, 1, 1)) == (120, (1, 1, 1, 1))
        assert (written.kept_bytes, written.is_owed) == (0, False)
    assert place > 30


@given(
    events=st.lists(st.integers(0, 3), min_size=30, max_size=80),
    said=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=40),
)
def test_the_books_are_right_however_many_numbers_are_merged(events, said):
    """The other end handles some frames, then says so: of each event it says what became of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "MOST_COUNTED", 2)
        patch.setattr(window, "MOST_MARKS", 4)
        written, acknowledged, became = Written(), 0, NONE
        ahead = iter(events)
        handled = 0
        outcomes = NONE
        for count, place in [*said, (len(events), 0)]:
            for _ in range(count):  # it handles a frame, and some more are written
                for more_events in itertools.islice(ahead, 1 + place):
                    write(written, more_events, 0, None)
                    written.count_only()
                if handled < written.last:
                    outcomes = more(outcomes, place, events[handled])
                    handled += 1
            got, added = written.acknowledge(handled, outcomes)
            acknowledged += got
            became = plus(became, added)
            assert became == outcomes
            assert sum(outcomes) <= acknowledged <= sum(events[:handled])
            assert acknowledged + written.events == sum(events[: written.last])
        if handled == written.last:
            assert acknowledged == sum(events[:handled])


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
