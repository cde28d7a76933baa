"""Who gets the next request to any, how much of it ahead, and what is taken back for one that is idle."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipevents._core.crew import AHEAD_SECONDS, MOST_AHEAD, Crew, Member, Work

LINKS = ("a", "b", "c")
SUBSETS = [each for size in range(4) for each in itertools.combinations(LINKS, size)]


def crew_of(**capacities):
    """A crew with these members."""
    crew = Crew("x")
    crew.update(capacities, 1)
    return crew


def given_out(crew, **counts):
    """Give each member so many requests."""
    for link, count in counts.items():
        for _ in range(count):
            crew.gave(link, 0.0)
    return crew


def work(*, source=None, size=1, excluded=(), avoid=()):
    made = Work("x", (), size, source=source)
    made.excluded += excluded
    made.avoid = avoid
    return made


def counts(crew, what="has"):
    return {link: getattr(member, what) for link, member in crew.members.items()}


# Who gets it


@pytest.mark.parametrize("capacities", [*itertools.product((1, 2, 3), repeat=3)])
def test_it_goes_to_the_one_with_the_least_of_it_for_its_capacity(capacities):
    for has in itertools.product(range(5), repeat=3):
        crew = crew_of(**dict(zip(LINKS, capacities, strict=True)))
        given_out(crew, **dict(zip(LINKS, has, strict=True)))
        with_room = [
            (count / capacity, at)
            for at, (count, capacity) in enumerate(zip(has, capacities, strict=True))
            if count < capacity + 1
        ]
        expected = LINKS[min(with_room)[1]] if with_room else None
        assert crew.choose() == expected


def test_of_those_with_as_much_it_goes_to_the_one_that_came_first():
    crew = crew_of(b=2, a=2)
    assert crew.choose() == "b"
    given_out(crew, b=1)
    assert crew.choose() == "a"
    given_out(crew, a=1)
    assert crew.choose() == "b"


@pytest.mark.parametrize("excluded", SUBSETS)
@pytest.mark.parametrize("avoid", SUBSETS)
@pytest.mark.parametrize("full", SUBSETS)
def test_it_goes_to_none_that_is_excluded_and_to_one_that_is_avoided_only_if_there_is_no_other(
    excluded, avoid, full
):
    crew = crew_of(a=1, b=1, c=1)
    given_out(crew, **dict.fromkeys(full, 2))
    allowed = [link for link in LINKS if link not in excluded]
    others = [link for link in allowed if link not in avoid]
    with_room = [link for link in others or allowed if link not in full]
    assert crew.choose(excluded, avoid) == (with_room[0] if with_room else None)
    assert crew.is_answered(excluded) == bool(allowed)
    as_members = tuple(crew.members[link] for link in excluded)
    assert crew.choose(as_members, avoid) == crew.choose(excluded, avoid)
    assert crew.is_answered(as_members) == bool(allowed)


def test_where_nobody_answers_nobody_gets_it():
    crew = Crew("x")
    assert crew.choose() is None
    assert not crew.is_answered()


# Who is there


def test_one_that_comes_and_one_that_goes():
    crew = crew_of(a=1, b=2)
    assert (crew.version, list(crew.members)) == (1, ["a", "b"])
    crew.update({"b": 3, "c": 1}, 2)
    assert crew.version == 2
    assert counts(crew, "capacity") == {"b": 3, "c": 1}


def test_one_that_stays_keeps_what_is_known_of_it():
    crew = given_out(crew_of(a=1), a=2)
    crew.note("a", True, False)
    crew.answered("a", 0.0001)
    before = crew.members["a"]
    crew.update({"a": 4}, 2)
    assert crew.members["a"] is before
    assert (before.has, before.capacity, before.ahead > 1) == (1, 4, True)


def test_one_that_answers_no_more_keeps_its_place_until_its_work_is_done():
    crew = given_out(crew_of(a=1, b=1), a=2)
    crew.update({"b": 1}, 2)
    member = crew.members["a"]
    assert (member.has, member.room, member.idle, member.spare) == (2, 0, 0, 0)
    assert crew.choose(("b",)) is None
    assert not crew.is_answered(("b",))
    crew.note("a", True, False)
    crew.note("a", False, False)
    assert list(crew.members) == ["b"]


def test_one_that_answers_again_meanwhile_has_what_it_had():
    crew = given_out(crew_of(a=1), a=2)
    crew.update({}, 2)
    crew.update({"a": 1}, 3)
    assert crew.members["a"].room == 0
    crew.note("a", True, False)
    assert crew.members["a"].room == 1


def test_another_process_at_the_link_of_one_that_is_excluded_may_get_it():
    crew = crew_of(a=1)
    excluded = (crew.members["a"],)
    assert crew.choose(excluded) is None
    crew.update({}, 2)
    crew.update({"a": 1}, 3)
    assert crew.choose(excluded) == "a"


# How much ahead


@pytest.mark.parametrize("capacity", [1, 2, 8, 1 << 30])
def test_at_first_each_gets_its_capacity_and_one_ahead(capacity):
    member = Member(capacity)
    member.has = capacity - 1
    assert (member.room, member.idle, member.spare) == (2, 1, 0)
    member.has = capacity
    assert (member.room, member.idle, member.spare) == (1, 0, 0)
    member.has = capacity + 1
    assert (member.room, member.idle, member.spare) == (0, 0, 1)


def answers_each(crew, seconds, times, link="a", at=0.0):
    """Have a member answer so often, one request after so many seconds. Returns the time then."""
    for _ in range(times):
        crew.gave(link, at)
        at += seconds
        crew.note(link, True, False)
        crew.answered(link, at)
    return at


@pytest.mark.parametrize(
    ("seconds", "ahead"),
    [
        (10.0, 1),
        (0.005, 1),
        (0.0051, 1),
        (0.00249, 2),
        (0.0004, 12),
        (0.0001, 49),
        (0.00001, 256),
        (0.0, 256),
    ],
)
def test_it_gets_as_much_ahead_as_takes_five_milliseconds(seconds, ahead):
    crew = crew_of(a=3)
    answers_each(crew, seconds, 40)
    assert crew.members["a"].ahead in (ahead, ahead + 1)
    assert crew.members["a"].room == 3 + crew.members["a"].ahead


def test_after_slow_answers_it_gets_less_again():
    crew = crew_of(a=1)
    at = answers_each(crew, 0.0, 3)
    assert crew.members["a"].ahead == MOST_AHEAD
    answers_each(crew, 0.1, 1, at=at)
    assert crew.members["a"].ahead == 1
    answers_each(crew, 0.0, 200, at=at)
    assert crew.members["a"].ahead == MOST_AHEAD


def test_answers_that_come_together_count_by_their_mean():
    crew = given_out(crew_of(a=1), a=10)
    for _ in range(10):
        crew.note("a", True, False)
    crew.answered("a", 0.01)
    assert crew.members["a"].seconds == pytest.approx(0.001)
    assert crew.members["a"].ahead == 5


def test_the_time_begins_with_the_first_request_of_one_that_had_nothing():
    crew = crew_of(a=1)
    crew.gave("a", 100.0)
    crew.gave("a", 107.0)
    crew.note("a", True, False)
    crew.answered("a", 108.0)
    assert crew.members["a"].seconds == 8.0
    crew.note("a", True, False)
    crew.answered("a", 109.0)
    assert crew.members["a"].seconds == pytest.approx(8.0 - 0.25 * 7.0)


def test_what_was_not_carried_out_says_nothing_of_how_fast_one_is():
    crew = given_out(crew_of(a=1), a=2)
    crew.note("a", False, False)
    crew.answered("a", 0.0)
    assert (crew.members["a"].seconds, crew.members["a"].ahead, crew.members["a"].has) == (None, 1, 1)


def test_a_clock_that_stands_still_or_goes_back_does_no_harm():
    crew = given_out(crew_of(a=1), a=1)
    crew.members["a"].answered_at = 5.0
    crew.note("a", True, False)
    crew.answered("a", 1.0)
    assert (crew.members["a"].seconds, crew.members["a"].ahead) == (0.0, MOST_AHEAD)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_it_is_never_less_than_one_ahead_nor_more_than_the_most(times):
    crew = crew_of(a=1)
    for seconds in times:
        answers_each(crew, seconds, 1)
        assert 1 <= crew.members["a"].ahead <= MOST_AHEAD
        mean = crew.members["a"].seconds
        assert crew.members["a"].ahead == 1 or crew.members["a"].ahead * mean <= AHEAD_SECONDS * 1.000001


def test_answers_of_a_link_that_is_no_member_are_nothing():
    crew = crew_of(a=1)
    crew.note("gone", True, True)
    crew.answered("gone", 1.0)
    crew.takes("gone", 3)
    assert counts(crew) == {"a": 0}


def test_more_answers_than_requests_are_nothing():
    crew = crew_of(a=1)
    crew.note("a", True, True)
    assert (crew.members["a"].has, crew.members["a"].taking) == (0, 0)


# What waits


def test_what_waits_is_counted_until_it_is_released():
    crew = crew_of(a=1)
    each = [work(size=10), work(size=20, source="a"), work(size=30, avoid=("a",)), work(size=40, source="a")]
    for number, one in enumerate(each, 1):
        crew.keep(number, one, first=number == 3)
    assert list(crew.waiting) == [3, 1, 2, 4]
    assert (crew.count, crew.bytes) == (4, 100)
    assert crew.choosy == {(("a",), ()): 2, ((), ("a",)): 1}
    for one in each:
        crew.release(one)
    assert (crew.count, crew.bytes, crew.choosy) == (0, 0, {})


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("members", "source", "is_hopeless"),
    [
        ({}, None, True),
        ({"a": 1}, None, False),
        ({"a": 1}, "a", True),
        ({"a": 1, "b": 1}, "a", False),
        ({"b": 1}, "a", False),
    ],
)
def test_what_waits_is_hopeless_where_nobody_that_answers_may_get_it(members, source, is_hopeless, is_open):
    crew = crew_of(**members)
    crew.is_open = is_open
    assert not crew.is_hopeless()
    crew.keep(1, work(source=source))
    assert crew.is_hopeless() == (is_hopeless and not is_open)


def test_what_is_avoided_by_all_that_waits_is_not_hopeless():
    crew = crew_of(a=1)
    crew.keep(1, work(avoid=("a",)))
    assert not crew.is_hopeless()


# Taking back


@pytest.mark.parametrize("capacities", [*itertools.product((1, 2, 4), repeat=3)])
def test_work_is_taken_back_only_where_one_is_idle_and_another_has_it_ahead(capacities):
    for has in itertools.product(range(7), repeat=3):
        crew = crew_of(**dict(zip(LINKS, capacities, strict=True)))
        given_out(crew, **dict(zip(LINKS, has, strict=True)))
        pairs = list(zip(has, capacities, strict=True))
        idle = sum(max(0, capacity - count) for count, capacity in pairs)
        ahead = sum(max(0, count - capacity) for count, capacity in pairs)
        wanted, givers = crew.takes_back()
        assert crew.is_unbalanced() == bool(idle and ahead) == bool(wanted)
        if not wanted:
            assert givers == []
            continue
        assert wanted == max(idle, ahead * idle // sum(capacities))
        assert dict(givers) == {
            link: count - capacity
            for link, (count, capacity) in zip(LINKS, pairs, strict=True)
            if count > capacity
        }
        parts = [most / crew.members[link].capacity for link, most in givers]
        assert parts == sorted(parts, reverse=True)


def test_of_what_is_being_taken_back_nothing_more_is():
    crew = given_out(crew_of(a=1, b=1), a=5)
    assert crew.takes_back() == (2, [("a", 4)])
    crew.takes("a", 2)
    assert crew.is_unbalanced()
    assert crew.takes_back() == (0, [("a", 2)])
    crew.note("a", False, True)
    assert counts(crew, "taking") == {"a": 1, "b": 0}
    crew.note("a", True, True)  # it was begun meanwhile
    assert counts(crew, "taking") == {"a": 0, "b": 0}
    assert crew.takes_back() == (1, [("a", 2)])


def test_an_answer_to_what_is_not_taken_back_leaves_what_is():
    crew = given_out(crew_of(a=1, b=1), a=4)
    crew.takes("a", 2)
    crew.note("a", True, False)
    assert (crew.members["a"].has, crew.members["a"].taking) == (3, 2)


def test_what_one_that_answers_no_more_has_is_not_taken_back():
    crew = given_out(crew_of(a=1, b=1), a=3)
    crew.update({"b": 1}, 2)
    assert not crew.is_unbalanced()
    assert crew.takes_back() == (0, [])


@pytest.mark.parametrize(
    ("one", "is_wanted"),
    [
        (work(), True),
        (work(source="b"), False),
        (work(source="a"), True),
        (work(avoid=("b",)), False),
        (work(avoid=("a",)), True),
    ],
)
def test_only_what_the_idle_one_may_get_is_wanted_back(one, is_wanted):
    crew = given_out(crew_of(a=1, b=1), a=3)
    assert crew.is_wanted(one) == is_wanted


def test_what_is_excluded_from_the_idle_process_is_not_wanted_back():
    crew = given_out(crew_of(a=1, b=1), a=3)
    assert not crew.is_wanted(work(excluded=(crew.members["b"],)))


# All of it together


class Piece:
    """One request, and where it is."""

    def __init__(self, number, source, avoid):
        self.number = number
        self.work = work(source=source, avoid=avoid)
        self.link = None
        self.is_taken = False


class Desk:
    """What the shell does with a crew, without anything else: give out, take back, hear answers."""

    def __init__(self):
        self.crew = Crew("x")
        self.version = 0
        self.capacities = {}
        self.pieces = {}
        self.last = 0
        self.now = 0.0
        self.done = 0
        self.failed = 0
        self.cancelled = 0

    # As Sharing._place, fill and _take_back

    def give(self, piece, link):
        piece.link, piece.is_taken = link, False
        self.crew.gave(link, self.now)

    def place(self, piece, *, first=False):
        crew = self.crew
        if first or crew.choosy or not crew.count:
            link = crew.choose(piece.work.excluded, piece.work.avoid)
            if link is not None:
                self.give(piece, link)
                return
        if not crew.is_answered(piece.work.excluded):
            del self.pieces[piece.number]
            self.failed += 1
            return
        crew.keep(piece.number, piece.work, first=first)

    def fill(self):
        crew = self.crew
        if crew.is_hopeless():
            waiting, crew.waiting = crew.waiting, type(crew.waiting)()
            for number in waiting:
                if number in self.pieces and self.pieces[number].link is None:
                    crew.release(self.pieces[number].work)
                    self.place(self.pieces[number])
        passed = []
        while crew.waiting:
            number = crew.waiting.popleft()
            piece = self.pieces.get(number)
            if piece is None or piece.link is not None:
                continue
            link = crew.choose(piece.work.excluded, piece.work.avoid)
            if link is None:
                passed.append(number)
                continue
            crew.release(piece.work)
            self.give(piece, link)
        crew.waiting.extendleft(reversed(passed))

    def at(self, link):
        return [piece for piece in self.pieces.values() if piece.link == link]

    # Steps

    def changes(self, link, capacity):
        """A neighbour answers so many at once now, or none."""
        if capacity:
            self.capacities[link] = capacity
        else:
            self.capacities.pop(link, None)
        self.version += 1
        self.crew.update(self.capacities, self.version)
        self.fill()

    def leaves(self, link):
        """A neighbour is gone, and another process gets what it had."""
        self.capacities.pop(link, None)
        self.version += 1
        self.crew.update(self.capacities, self.version)
        self.crew.members.pop(link, None)
        for piece in self.at(link):
            piece.link = None
            piece.work.avoid += (link,)
            self.place(piece, first=True)
        self.fill()

    def asks(self, source, avoid):
        self.last += 1
        piece = self.pieces[self.last] = Piece(self.last, source, avoid)
        self.place(piece)

    def answers(self, link, at, seconds):
        """It answers one of those that it has, also of those that it was asked to give back."""
        if pieces := self.at(link):
            piece = pieces[at % len(pieces)]
            del self.pieces[piece.number]
            self.now += seconds
            self.crew.note(link, True, piece.is_taken)
            self.crew.answered(link, self.now)
            self.done += 1
            self.fill()

    def gives_back(self, link, at):
        """It gives one back that it was asked for."""
        if pieces := [piece for piece in self.at(link) if piece.is_taken]:
            piece = pieces[at % len(pieces)]
            self.crew.note(link, False, True)
            piece.link = None
            self.place(piece, first=True)
            self.fill()

    def refuses(self, link, at):
        """It says of one that nobody answers there after all."""
        if pieces := self.at(link):
            piece = pieces[at % len(pieces)]
            member = self.crew.members.get(link)
            self.crew.note(link, False, piece.is_taken)
            piece.work.excluded += (member or link,)
            piece.link = None
            self.place(piece, first=True)
            self.fill()

    def cancels(self, at):
        """Nobody waits any more for one that waits here."""
        if pieces := self.at(None):
            piece = pieces[at % len(pieces)]
            del self.pieces[piece.number]
            self.crew.release(piece.work)
            self.cancelled += 1

    def looks(self):
        """Take work back where that is due. Returns how many."""
        crew = self.crew
        wanted, givers = crew.takes_back()
        found = 0
        for link, most in givers:
            ahead = crew.members[link].has - crew.members[link].capacity
            for piece in reversed(self.at(link)):
                if min(wanted - found, ahead) <= 0 or not most:
                    break
                ahead -= 1
                if not piece.is_taken and crew.is_wanted(piece.work):
                    piece.is_taken = True
                    crew.takes(link, 1)
                    found += 1
                    most -= 1
        assert found <= wanted
        return found

    def check(self):
        crew = self.crew
        for link, member in crew.members.items():
            pieces = self.at(link)
            assert member.has == len(pieces)
            assert member.taking == sum(piece.is_taken for piece in pieces)
            assert 0 <= member.taking <= member.has
            assert member.spare == (
                max(0, member.has - member.capacity - member.taking) if member.capacity else 0
            )
            assert member.capacity == self.capacities.get(link, 0)
            assert member.capacity or member.has
        assert {piece.link for piece in self.pieces.values()} <= {None, *crew.members}
        waiting = self.at(None)
        numbers = [number for number in crew.waiting if number in {piece.number for piece in waiting}]
        assert sorted(numbers) == sorted(piece.number for piece in waiting)
        assert crew.count == crew.bytes == len(waiting)
        assert sum(crew.choosy.values()) == sum(
            bool(piece.work.excluded or piece.work.avoid) for piece in waiting
        )
        for piece in waiting:  # nothing waits that could be begun, and nothing that never can
            assert crew.choose(piece.work.excluded, piece.work.avoid) is None
            assert crew.is_answered(piece.work.excluded)
        members = crew.members.values()
        is_idle = any(member.idle for member in members)
        is_spare = any(member.spare for member in members)
        assert crew.is_unbalanced() == (is_idle and is_spare)


LINK = st.sampled_from(LINKS)
AT = st.integers(0, 20)
STEPS = st.one_of(
    st.tuples(st.just("changes"), LINK, st.integers(0, 4)),
    st.tuples(st.just("leaves"), LINK),
    st.tuples(st.just("asks"), st.none() | LINK, st.lists(LINK, max_size=2, unique=True).map(tuple)),
    st.tuples(st.just("asks"), st.none(), st.just(())),
    st.tuples(st.just("asks"), st.none(), st.just(())),
    st.tuples(st.just("answers"), LINK, AT, st.floats(0, 0.01)),
    st.tuples(st.just("gives_back"), LINK, AT),
    st.tuples(st.just("refuses"), LINK, AT),
    st.tuples(st.just("cancels"), AT),
    st.tuples(st.just("looks")),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_after_any_steps_all_is_in_one_place_and_nothing_waits_that_could_be_begun(steps):
    desk = Desk()
    for link in LINKS:
        desk.changes(link, 1)
    for step, *items in steps:
        getattr(desk, step)(*items)
        desk.check()
    assert desk.last == len(desk.pieces) + desk.done + desk.failed + desk.cancelled


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3), st.lists(st.integers(0, 30), min_size=2, max_size=3)
)
def test_when_work_is_taken_back_until_nothing_is_nobody_is_idle_while_another_has_work_ahead(
    capacities, has
):
    """Where all is given back that can be, as by processes that have begun only what they work on."""
    desk = Desk()
    for link, capacity in zip(LINKS, capacities, strict=False):
        desk.changes(link, capacity)
    for link, count in zip(LINKS, has, strict=False):
        if link in desk.capacities:
            for _ in range(count):
                desk.last += 1
                desk.pieces[desk.last] = Piece(desk.last, None, ())
                desk.give(desk.pieces[desk.last], link)
    for _ in range(200):
        desk.check()
        if not desk.looks():
            break
        for link in LINKS:
            while any(piece.is_taken for piece in desk.at(link)):
                desk.gives_back(link, 0)
                desk.check()
    else:
        pytest.fail("work goes to and fro for ever")
    assert not desk.crew.is_unbalanced()
