"""The open requests of each link: what is still to come, what is lost with a link, and what was begun."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import requests as module
from ipevents._core.crew import Crew, Work
from ipevents._core.requests import (
    BEYOND,
    BOTH,
    CANCELLED,
    LOST,
    MAX_SPLIT,
    NEXT,
    NO_ANSWERER,
    OVERDUE,
    RAISED,
    REFUSED,
    SPLIT,
    VALUE,
    Given,
    Requests,
    begun_nothing,
)
from ipevents._exceptions import ProtocolError

ENDS = [VALUE, RAISED, NO_ANSWERER, LOST, CANCELLED, OVERDUE, REFUSED]


def items_of(gone):
    return [(each.number, each.back, each.back_number, each.event, each.left, each.begun) for each in gone]


def made(count, link="a", back="sink", event="x"):
    """So many requests that started here and went down a link: 1, 2 and so on."""
    requests = Requests()
    for number in range(1, count + 1):
        assert requests.put(link, back, event) == number
    return requests


def lost(requests, link="a", begun=None, **how):
    """The numbers of what is lost, with whether each was begun."""
    return {gone.number: gone.begun for gone in requests.gone(link, begun, **how)}


# Put, and answered


@pytest.mark.parametrize("status", ENDS)
def test_a_request_is_over_with_its_answer(status):
    requests = made(2)
    asked, is_last = requests.answered("a", 1, status)
    assert (asked.back, asked.back_number, asked.event, is_last) == ("sink", 0, "x", True)
    assert requests.count("a") == 1
    assert lost(requests) == {2: None}


def test_an_answer_tells_who_has_asked_and_with_which_number():
    requests = Requests()
    assert requests.put("a", "b", "y", 77) == 1
    asked, _ = requests.answered("a", 1, VALUE)
    assert (asked.back, asked.back_number, asked.event) == ("b", 77, "y")


def test_each_link_has_numbers_of_its_own_from_1_on():
    requests = Requests()
    numbers = [requests.put(link, "sink", "x") for link in "aabab"]
    assert numbers == [1, 2, 1, 3, 2]


def test_one_number_of_two_askers_is_two_requests():
    requests = Requests()
    assert requests.put("a", "b", "x", 5) == 1
    assert requests.put("a", "c", "x", 5) == 2
    assert requests.put("a", "b", "x", 5) == 3  # as a process that errs may send it
    assert requests.of("b", 5) == [("a", 1), ("a", 3)]
    assert requests.of("c", 5) == [("a", 2)]
    asked, is_last = requests.answered("a", 2, VALUE)
    assert (asked.back, asked.back_number, is_last) == ("c", 5, True)
    assert requests.of("b", 5) == [("a", 1), ("a", 3)]
    assert requests.of("c", 5) == []
    requests.answered("a", 1, VALUE)
    assert requests.of("b", 5) == [("a", 3)]


def test_a_number_is_never_used_again_while_the_link_is_there():
    requests = made(2)
    requests.answered("a", 2, VALUE)
    requests.answered("a", 1, VALUE)
    assert requests.put("a", "sink", "x") == 3
    assert requests.put("a", "sink", "x", waits=True) == 4
    assert requests.put("a", "sink", "x") == 5


def test_after_the_link_its_numbers_begin_anew():
    requests = made(2)
    requests.gone("a")
    assert requests.put("a", "sink", "x") == 1


def test_a_request_is_found_by_its_number_while_it_is_open():
    requests = made(1)
    waiting = requests.put("a", "other", "y", waits=True, reach=BEYOND)
    assert requests.get("a", 1).back == "sink"
    found = requests.get("a", waiting)
    assert (found.back, found.event, found.left, found.reach, found.is_cancelled) == (
        "other",
        "y",
        1,
        BEYOND,
        False,
    )
    assert requests.get("a", 99) is None
    assert requests.get("b", 1) is None
    requests.answered("a", 1, VALUE)
    assert requests.get("a", 1) is None


def test_all_that_are_open_are_listed():
    requests = made(2)
    requests.put("b", "c", "y", 9)
    requests.put("a", "sink", "x", waits=True)
    requests.answered("a", 1, VALUE)
    found = {(link, number): (asked.back, asked.event) for link, number, asked in requests.each()}
    assert found == {("a", 2): ("sink", "x"), ("a", 3): ("sink", "x"), ("b", 1): ("c", "y")}


def test_a_link_is_full_with_so_many_that_are_open_or_wait(monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    requests = Requests()
    assert not requests.is_full("a")
    for waits in (False, True, False):
        assert not requests.is_full("a")
        requests.put("a", "sink", "x", waits=waits)
    assert requests.is_full("a")
    assert not requests.is_full("b")
    requests.answered("a", 1, VALUE)
    assert not requests.is_full("a")
    assert requests.is_full("a", 2)


def test_the_limit_is_the_one_that_is_documented():
    assert module.MAX_OPEN == 100_000


# Forged answers


@pytest.mark.parametrize("status", [*ENDS, SPLIT])
def test_an_answer_to_what_did_not_go_down_that_link_is_refused(status):
    requests = made(1)
    for link, number in [("a", 2), ("a", 0), ("a", -1), ("b", 1)]:
        with pytest.raises(ProtocolError, match="never got"):
            requests.answered(link, number, status)
    assert lost(requests) == {1: None}


@pytest.mark.parametrize("status", ENDS)
def test_a_second_answer_is_refused(status):
    requests = made(1)
    requests.answered("a", 1, VALUE)
    with pytest.raises(ProtocolError):
        requests.answered("a", 1, status)


@pytest.mark.parametrize("status", [-1, 8, 1 << 62])
def test_an_answer_of_a_sort_that_there_is_not_is_refused_and_ends_nothing(status):
    requests = made(1)
    with pytest.raises(ProtocolError, match=f"of the sort {status}"):
        requests.answered("a", 1, status)
    assert requests.answered("a", 1, VALUE)[1]


def test_one_that_waits_for_the_next_process_is_not_answered_by_the_last():
    requests = Requests()
    number = requests.put("a", "sink", "x", waits=True)
    with pytest.raises(ProtocolError):
        requests.answered("a", number, VALUE)


@pytest.mark.parametrize("more", [-2, -MAX_SPLIT, MAX_SPLIT + 1, 10**1000])
def test_a_split_into_more_or_fewer_than_there_can_be_is_refused(more):
    requests = made(1)
    with pytest.raises(ProtocolError, match="stands for"):
        requests.answered("a", 1, SPLIT, more)
    assert requests.answered("a", 1, VALUE)[1]


def test_no_fewer_are_to_come_than_none():
    requests = made(1)
    requests.answered("a", 1, SPLIT, 3)  # 4
    requests.answered("a", 1, VALUE)  # 3
    with pytest.raises(ProtocolError, match="stands for -4 more"):
        requests.answered("a", 1, SPLIT, -4)
    assert requests.get("a", 1).left == 3
    assert requests.answered("a", 1, SPLIT, -3)[1] is True
    assert requests.get("a", 1) is None


# Requests to all


def test_a_request_that_is_split_is_over_when_all_parts_are():
    requests = made(1)
    assert requests.answered("a", 1, SPLIT, 2)[1] is False  # 3 are to come
    assert requests.answered("a", 1, VALUE)[1] is False
    assert requests.answered("a", 1, SPLIT, 1)[1] is False  # 3 again
    assert requests.answered("a", 1, RAISED)[1] is False
    assert requests.answered("a", 1, SPLIT, -1)[1] is False
    assert requests.answered("a", 1, LOST)[1] is True
    assert requests.count("a") == 0


def test_where_nobody_answers_less_is_to_come():
    requests = made(1)
    assert requests.answered("a", 1, SPLIT, -1)[1] is True


def test_what_stands_for_several_may_be_lost_at_once_and_leave_one():
    requests = made(1)
    requests.answered("a", 1, SPLIT, 5)  # 6
    assert requests.answered("a", 1, SPLIT, -5)[1] is False
    assert requests.answered("a", 1, LOST)[1] is True


def test_what_was_still_to_come_is_told_when_the_link_goes():
    requests = Requests()
    requests.put("a", "b", "x", 11)
    requests.put("a", "b", "x", 12)
    requests.answered("a", 1, SPLIT, 4)
    requests.answered("a", 1, VALUE)
    assert items_of(requests.gone("a")) == [(1, "b", 11, "x", 4, None), (2, "b", 12, "x", 1, None)]
    assert requests.of("b", 11) == requests.of("b", 12) == []
    assert requests.gone("a") == []


TREES = st.recursive(st.booleans(), lambda inner: st.tuples(st.booleans(), st.lists(inner, max_size=4)))
END = "the connection has ended"


class Sink:
    """What waits for the answers to one request to all, and what has come."""

    def __init__(self, process):
        self.process = process
        self.left = 0
        self.answers = []
        self.lost = 0
        self.overs = 0

    def came(self, status, value, is_last):
        assert not self.overs, "over, and something else comes"
        if status == VALUE:
            self.answers.append(value)
        elif status == LOST:
            self.lost += 1
        self.left -= is_last
        self.overs += not self.left


class Process:
    """One process of a tree, as it treats requests to all; what is on its way to and from its parent."""

    def __init__(self, tree, above, tree_of_all):
        self.answers, below = tree if isinstance(tree, tuple) else (tree, [])
        self.above = above
        self.requests = Requests()
        self.is_alive = True
        self.up: deque = deque()
        self.down: deque = deque()
        tree_of_all.append(self)
        self.made = [Process(each, self, tree_of_all) for each in below]
        self.below = list(self.made)  # those of which it does not know that they are gone

    def ask(self):
        sink = Sink(self)
        for child in self.below:
            child.down.append(self.requests.put(child, sink, "x", reach=BOTH))
            sink.left += 1
        return sink

    def asked(self, number):
        for child in self.below:
            child.down.append(self.requests.put(child, self.above, "x", number, reach=BOTH))
        more = len(self.below) + self.answers - 1
        if more:
            self.up.append((number, SPLIT, more))
        if self.answers:
            self.up.append((number, VALUE, self))

    def take_up(self, child):
        """Take what has come from a child."""
        record = child.up.popleft()
        if record != END:
            number, status, value = record
            asked, is_last = self.requests.answered(child, number, status, value if status == SPLIT else 0)
            self.pass_on(asked, status, value, is_last)
            return
        self.below.remove(child)
        for gone in self.requests.gone(child, begun_nothing):
            assert gone.begun is None  # others may have begun it
            if gone.back_number:
                if gone.left > 1:
                    self.up.append((gone.back_number, SPLIT, 1 - gone.left))
                self.up.append((gone.back_number, LOST, child))
            elif gone.back is not None:
                gone.back.came(LOST, child, True)

    def pass_on(self, asked, status, value, is_last):
        if asked.back_number:
            assert asked.back is self.above
            self.up.append((asked.back_number, status, value))
        elif asked.back is not None:
            asked.back.came(status, value, is_last)

    def take_down(self):
        """Take what has come from above."""
        number = self.down.popleft()
        if number != END:
            self.asked(number)
            return
        for child, below in self.requests.asker_gone(self.above):
            assert self.requests.get(child, below).back is None
        self.up.clear()

    def die(self):
        self.is_alive = False
        self.up.append(END)
        self.down.clear()
        for child in self.made:
            child.down.append(END)

    def is_reached_from(self, process):
        """Whether this and all between it and a process live."""
        return self is process or (
            self.is_alive and self.above is not None and self.above.is_reached_from(process)
        )

    def is_below(self, process):
        return self.above is not None and (self.above is process or self.above.is_below(process))


@given(TREES, st.integers(0, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_count_of_requests_to_all_ends_with_the_last_answer_in_any_order(tree, asks, deaths, draw):
    """Processes ask, answer, pass on and die in any order. Each asks all that are below it."""
    everyone: list[Process] = []
    root = Process(tree, None, everyone)
    sinks = [root.ask()]
    while True:
        steps = [each.take_down for each in everyone if each.is_alive and each.down]
        steps += [
            lambda each=each: each.above.take_up(each)
            for each in everyone
            if each.up and each.above is not None and each.above.is_alive
        ]
        living = [each for each in everyone if each.is_alive]
        if asks:
            steps.append(lambda living=living: sinks.append(draw.choice(living).ask()))
        if deaths and len(living) > 1:
            steps.append(lambda living=living: draw.choice(living[1:]).die())
        if not steps:
            break
        step = draw.choice(steps)
        count = len(sinks), len(living)
        step()
        asks -= len(sinks) - count[0]
        deaths -= count[1] - sum(each.is_alive for each in everyone)
    for sink in sinks:
        asker = sink.process
        if not asker.is_alive:
            continue
        assert sink.left == 0
        assert sink.overs == (1 if sink.answers or sink.lost or sink.overs else 0)
        assert len(sink.answers) == len(set(sink.answers))
        below = {each for each in everyone if each.is_below(asker) and each.answers}
        assert {each for each in below if each.is_reached_from(asker)} <= set(sink.answers) <= below
        if all(each.is_alive for each in everyone):
            assert sink.lost == 0
    for each in everyone:
        if each.is_alive and each.is_reached_from(root):
            assert each.requests.each() == []


# What is lost, and whether it was begun


def lanes(**by_event):
    """The shared page as it is read: for each event its lane, and the number that this began last."""
    return by_event.get


def test_what_nobody_can_know_of_is_not_known():
    assert lost(made(2)) == {1: None, 2: None}
    assert lost(made(2), begun=lambda event: None) == {1: None, 2: None}


def test_of_a_process_that_began_nothing_nothing_was_begun():
    assert lost(made(2), begun=begun_nothing) == {1: False, 2: False}


@pytest.mark.parametrize("reach", [BEYOND, BOTH])
def test_what_others_may_have_begun_is_not_known_from_the_process_at_the_link(reach):
    requests = made(1)
    requests.put("a", "sink", "x", reach=reach)
    requests.put("a", "sink", "x")
    begun = lanes(x=(0, 2))
    assert not requests.is_begun("a", 2, begun)
    assert lost(requests, begun=begun) == {1: True, 2: None, 3: False}


@pytest.mark.parametrize("status", [*ENDS, SPLIT])
def test_an_answer_does_not_say_that_the_process_at_the_link_began_anything(status):
    """It may be one further on that answers, or this one without having begun it."""
    requests = made(2)
    requests.answered("a", 2, status)
    assert not requests.is_begun("a", 1, lanes(x=(0, 0)))
    assert lost(requests, begun=lanes(x=(0, 0)))[1] is False


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_request_to_all_that_was_begun_tells_of_those_before_it(is_answered):
    requests = made(1)
    requests.put("a", "sink", "x", reach=BOTH)
    if is_answered:
        requests.answered("a", 2, VALUE)
    assert lost(requests, begun=lanes(x=(0, 2)))[1] is True


def test_what_came_up_to_the_last_one_that_was_begun_was_begun_and_nothing_after_it():
    assert lost(made(4), begun=lanes(x=(0, 3))) == {1: True, 2: True, 3: True, 4: False}


def test_one_that_was_answered_may_be_the_last_that_was_begun():
    requests = made(4)
    requests.answered("a", 3, VALUE)
    requests.answered("a", 1, VALUE)
    assert lost(requests, begun=lanes(x=(0, 3))) == {2: True, 4: False}


def test_an_answer_that_came_after_the_next_one_was_begun_hides_nothing():
    requests = made(3)
    requests.answered("a", 1, VALUE)
    assert lost(requests, begun=lanes(x=(0, 2))) == {2: True, 3: False}


def test_events_of_one_lane_are_begun_in_one_order():
    requests = Requests()
    for event in "xyxy":
        requests.put("a", "sink", event)
    assert lost(requests, begun=lanes(x=(0, 2), y=(0, 2))) == {1: True, 2: True, 3: False, 4: False}


def test_lanes_know_nothing_of_each_other():
    requests = Requests()
    for event in "xyxz":
        requests.put("a", "sink", event)
    assert lost(requests, begun=lanes(x=(0, 0), y=(1, 2))) == {1: False, 2: True, 3: False, 4: None}


def test_the_page_is_read_once_for_each_event():
    """It is read while the process may still be ending; two answers about one event must not differ."""
    requests = made(3)
    requests.put("a", "sink", "y")
    read = []

    def begun(event):
        read.append(event)
        return 0, 2

    lost(requests, begun=begun)
    assert read == ["x", "y"]


PUTS = st.tuples(
    st.sampled_from("xyzu"),
    st.sampled_from([NEXT, NEXT, NEXT, BEYOND, BOTH]),
    st.booleans(),  # came by another link
    st.integers(0, 2),  # 0: waits for the next process
)


@given(st.lists(st.lists(PUTS, max_size=8), min_size=1, max_size=4), st.data())
def test_begun_is_as_it_was_in_each_process_at_a_link(lives, data):
    """A process begins requests lane by lane in their order, and answers any of what it has begun.

    Of the event "u" it does not tell what it has begun.
    """
    lane_of = {"x": 0, "y": 0, "z": 1, "u": 2}
    requests = Requests()
    numbers: list[int] = []
    coming: list[tuple[int, str, int]] = []  # for the process that runs
    for life, puts in enumerate(lives):
        following = []
        for event, reach, is_passed, waits in puts:
            back_number = data.draw(st.integers(1, 3)) if is_passed else None
            how = {"waits": not waits, "reach": reach}
            number = requests.put("a", "b" if is_passed else "sink", event, back_number, **how)
            numbers.append(number)
            (coming if waits else following).append((number, event, reach))
        by_lane: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for number, event, reach in coming:
            if reach != BEYOND:
                by_lane[lane_of[event]].append(number)
        counts = {lane: data.draw(st.integers(0, len(those))) for lane, those in by_lane.items()}
        begun = {number for lane, those in by_lane.items() for number in those[: counts[lane]]}
        last = {lane: those[counts[lane] - 1] if counts[lane] else 0 for lane, those in by_lane.items()}
        may_be_answered = sorted(begun | {number for number, _, reach in coming if reach == BEYOND})
        answered = set()
        if may_be_answered:
            answered = data.draw(st.sets(st.sampled_from(may_be_answered)))
        for number in sorted(answered, key=lambda number: (number * 7) % 5):
            requests.answered("a", number, VALUE)

        def page(event, last=last):
            return None if event == "u" else (lane_of[event], last[lane_of[event]])

        expected = {
            number: number in begun if reach == NEXT and event != "u" else None
            for number, event, reach in coming
            if number not in answered
        }
        for number, is_begun in expected.items():
            assert requests.is_begun("a", number, page) == (is_begun is True)
        for number, _, _ in following:
            assert not requests.is_begun("a", number, page)
        goes_on = life < len(lives) - 1
        if not goes_on:
            expected.update({number: False for number, _, _ in following})
        assert lost(requests, begun=page, goes_on=goes_on) == expected
        coming = following
    assert numbers == sorted(set(numbers))
    assert requests.each() == []
    assert [requests.of("b", number) for number in (1, 2, 3)] == [[], [], []]


# Another process at the same link


def test_what_waits_for_the_next_process_is_not_lost_with_the_last_one():
    requests = made(1)
    requests.put("a", "b", "x", 5, waits=True)
    assert lost(requests, begun=lanes(x=(0, 1)), goes_on=True) == {1: True}
    assert requests.count("a") == 1
    assert requests.of("b", 5) == [("a", 2)]
    asked, is_last = requests.answered("a", 2, VALUE)
    assert (asked.back, is_last) == ("b", True)


def test_it_is_lost_and_certainly_not_begun_where_none_follows():
    requests = made(1)
    requests.put("a", "b", "x", 5, waits=True)
    found = items_of(requests.gone("a", lanes(x=(0, 99))))
    assert found == [(1, "sink", 0, "x", 1, True), (2, "b", 5, "x", 1, False)]
    assert requests.count("a") == 0
    assert requests.of("b", 5) == []


def test_the_numbers_go_on_rising_for_the_next_process():
    requests = made(2)
    requests.put("a", "sink", "x", waits=True)
    lost(requests, goes_on=True)
    assert requests.put("a", "sink", "x") == 4
    assert lost(requests, begun=lanes(x=(0, 3))) == {3: True, 4: False}


def test_they_do_where_nothing_has_waited_for_it():
    requests = made(2)
    lost(requests, goes_on=True)
    assert requests.count("a") == 0
    assert requests.put("a", "sink", "x") == 3


def test_the_next_process_does_not_answer_for_the_last_one():
    requests = made(1)
    lost(requests, goes_on=True)
    with pytest.raises(ProtocolError):
        requests.answered("a", 1, VALUE)


def test_nothing_stays_of_a_link_down_which_nothing_went():
    requests = Requests()
    assert requests.gone("a", goes_on=True) == []
    assert requests.count("a") == 0


# Which is where


def test_a_request_is_begun_if_one_that_came_later_is():
    requests = made(3)
    assert requests.is_begun("a", 1, lanes(x=(0, 2)))
    assert requests.is_begun("a", 2, lanes(x=(0, 2)))
    assert not requests.is_begun("a", 3, lanes(x=(0, 2)))
    assert not requests.is_begun("a", 1, lambda event: None)
    assert not requests.is_begun("a", 99, lanes(x=(0, 99)))
    assert not requests.is_begun("b", 1, lanes(x=(0, 2)))


def test_one_that_waits_is_not_begun_whatever_the_last_process_has_begun():
    requests = Requests()
    number = requests.put("a", "sink", "x", waits=True)
    assert not requests.is_begun("a", number, lanes(x=(0, 99)))


def test_the_links_of_one_that_went_down_several_are_found_by_who_has_asked():
    requests = made(1, link="c")  # another one of the same number, which started here
    assert requests.put("a", "up", "x", 1) == 1
    assert requests.put("b", "up", "x", 1) == 1
    assert requests.put("c", "up", "x", 1, waits=True) == 2
    assert requests.put("d", "other", "x", 1) == 1
    assert requests.put("b", "up", "x", 2) == 2
    assert requests.of("up", 1) == [("a", 1), ("b", 1), ("c", 2)]
    assert requests.of("up", 2) == [("b", 2)]
    assert requests.of("other", 1) == [("d", 1)]
    assert requests.of("sink", 1) == requests.of("sink", 0) == requests.of("up", 3) == []
    requests.answered("b", 1, VALUE)
    assert requests.of("up", 1) == [("a", 1), ("c", 2)]
    requests.gone("a")
    assert requests.of("up", 1) == [("c", 2)]


def test_one_that_is_split_is_found_until_its_last_answer():
    requests = Requests()
    requests.put("a", "up", "x", 7)
    requests.answered("a", 1, SPLIT, 1)
    requests.answered("a", 1, VALUE)
    assert requests.of("up", 7) == [("a", 1)]
    requests.answered("a", 1, VALUE)
    assert requests.of("up", 7) == []


def test_of_an_asker_that_is_gone_all_are_found_once_and_are_nobodys_from_then_on():
    requests = Requests()
    requests.put("a", "up", "x", 1)
    requests.put("a", "up", "x", 2)
    requests.put("b", "up", "x", 1, waits=True)
    requests.put("b", "other", "x", 1)
    requests.put("b", "sink", "x")
    assert requests.asker_gone("up") == [("a", 1), ("b", 1), ("a", 2)]
    assert requests.asker_gone("up") == requests.asker_gone("nobody") == []
    assert requests.of("up", 1) == []
    assert [asked.back for _, _, asked in requests.each()] == [None, None, "other", "sink", None]
    asked, is_last = requests.answered("a", 1, VALUE)
    assert (asked.back, asked.back_number, is_last) == (None, 0, True)


def test_another_asker_at_the_same_link_has_nothing_of_the_last_one():
    """Its numbers begin anew, so they are those of the other one."""
    requests = Requests()
    requests.put("a", "up", "x", 1)
    requests.asker_gone("up")
    requests.put("a", "up", "y", 1)
    assert requests.of("up", 1) == [("a", 2)]
    assert requests.answered("a", 1, VALUE)[0].back is None
    assert requests.of("up", 1) == [("a", 2)]
    asked, _ = requests.answered("a", 2, VALUE)
    assert (asked.back, asked.back_number, asked.event) == ("up", 1, "y")
    assert requests.of("up", 1) == []


def test_what_was_asked_by_one_that_is_gone_is_lost_for_nobody():
    requests = Requests()
    requests.put("a", "up", "x", 1)
    requests.asker_gone("up")
    assert items_of(requests.gone("a")) == [(1, None, 0, "x", 1, None)]


# Requests to any, which are given from one to another


def any_one(back="b", back_number=7):
    return Given(back, Work("x", (), 1), back_number)


def test_one_that_is_added_is_a_request_as_any_other():
    requests = made(1)
    given_one = any_one()
    assert requests.add("a", given_one) == 2
    assert requests.get("a", 2) is given_one
    assert requests.of("b", 7) == [("a", 2)]
    assert requests.answered("a", 2, VALUE) == (given_one, True)
    assert requests.of("b", 7) == []


def test_one_that_is_taken_is_not_there_any_more():
    requests = Requests()
    given_one = any_one()
    number = requests.add("a", given_one)
    assert requests.take("a", number) is given_one
    assert requests.count("a") == 0
    assert requests.of("b", 7) == []
    assert requests.take("a", number) is None
    assert requests.take("nobody", number) is None
    with pytest.raises(ProtocolError):
        requests.answered("a", number, VALUE)


def test_a_number_of_one_that_was_taken_is_not_used_again():
    requests = Requests()
    requests.take("a", requests.add("a", any_one()))
    assert requests.add("a", any_one()) == 2


def test_one_that_moves_is_found_and_cancelled_where_it_is():
    requests = Requests()
    crew, given_one = Crew("x"), any_one()
    requests.add(crew, given_one)
    assert requests.of("b", 7) == [(crew, 1)]
    for link in ("a", "c", "a"):
        (place,) = requests.of("b", 7)
        requests.add(link, requests.take(*place))
    assert requests.of("b", 7) == [("a", 2)]
    assert [requests.count(link) for link in (crew, "a", "c")] == [0, 1, 0]


def test_of_an_asker_that_is_gone_it_is_nobodys_wherever_it_is():
    requests = Requests()
    crew, first, second = Crew("x"), any_one(), any_one(back_number=8)
    requests.add(crew, first)
    requests.add("a", requests.take(crew, 1))
    requests.add(crew, second)
    assert requests.asker_gone("b") == [("a", 1), (crew, 2)]
    assert (first.back, first.back_number, second.back) == (None, 0, None)
    assert requests.asker_gone("b") == []
    assert requests.take(crew, 2) is second


def test_one_of_this_process_is_nobody_elses():
    requests = Requests()
    given_one = any_one("sink", 0)
    requests.add("a", given_one)
    assert requests.of("sink", 0) == []
    assert requests.take("a", 1) is given_one


def test_two_with_one_number_of_one_asker_are_two():
    requests = Requests()
    one, other = any_one(), any_one()
    requests.add("a", one)
    requests.add("a", other)
    requests.add("c", requests.take("a", 1))
    assert requests.of("b", 7) == [("a", 2), ("c", 1)]
    assert requests.answered("a", 2, VALUE)[0] is other
    assert requests.of("b", 7) == [("c", 1)]


@pytest.mark.parametrize("was_begun", [True, False])
def test_what_is_lost_with_a_link_is_told_as_the_one_that_can_be_given_again(was_begun):
    requests = Requests()
    given_one = any_one()
    requests.add("a", given_one)
    (gone,) = requests.gone("a", lanes(x=(0, int(was_begun))))
    assert (gone.asked, gone.begun, gone.back, gone.back_number) == (given_one, was_begun, "b", 7)
    assert requests.of("b", 7) == []
    assert requests.add("c", given_one) == 1
    assert requests.of("b", 7) == [("c", 1)]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["add", "move", "answer", "gone", "asker gone"]),
        st.sampled_from("acw"),
        st.integers(0, 9),
        st.sampled_from(["b", "d", "sink"]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@given(MOVES)
def test_each_is_in_one_place_and_found_there_by_its_asker_after_any_moves(moves):
    """ "w" stands for a crew: what waits there is not answered."""
    requests = Requests()
    places: dict[Given, tuple[str, int]] = {}
    asked_by: dict[Given, tuple[str, int]] = {}
    for what, link, at, back, number in moves:
        each = list(places)[at % len(places)] if places else None
        if what == "add":
            each = any_one(back, 0 if back == "sink" else number)
            asked_by[each] = (back, each.back_number)
            places[each] = (link, requests.add(link, each))
        elif what == "move" and each is not None:
            assert requests.take(*places.pop(each)) is each
            places[each] = (link, requests.add(link, each))
        elif what == "answer" and each is not None:
            assert requests.answered(*places.pop(each), VALUE) == (each, True)
        elif what == "gone":
            found = {gone.asked for gone in requests.gone(link)}
            assert found == {each for each, (where, _) in places.items() if where == link}
            for each in found:
                del places[each]
        elif what == "asker gone" and back != "sink":
            mine = [each for each in places if asked_by[each][0] == back]
            assert sorted(requests.asker_gone(back)) == sorted(places[each] for each in mine)
            for each in mine:
                assert (each.back, each.back_number) == (None, 0)
                asked_by[each] = ("nobody", 0)
        assert {asked: (link, n) for link, n, asked in requests.each()} == places
        for back, number in {(back, number) for back, number in asked_by.values() if number}:
            mine = [places[each] for each in places if asked_by[each] == (back, number)]
            assert sorted(requests.of(back, number)) == sorted(mine)
