from __future__ import annotations

import random

import pytest

from ipevents._core import page_layout as module
from ipevents._core.page_layout import DISPATCHER, LANES, SLOTS, Lanes, begun_last, key_slot, mark_of


@pytest.fixture
def slots():
    return memoryview(bytearray(8 * SLOTS)).cast("Q")


def test_each_slot_has_one_purpose_and_all_are_used():
    marks = [module._mark_slot(lane) for lane in range(1, LANES + 1)]
    keys = [key_slot(lane) for lane in range(LANES + 1)]
    assert sorted([*marks, *keys, module._OVERFLOW]) == list(range(SLOTS))


def test_on_an_empty_page_each_event_is_in_the_dispatchers_lane_and_nothing_has_begun(slots):
    assert begun_last(slots, "x") == (DISPATCHER, 0)


def test_the_mark_of_an_event_is_the_same_in_each_process_and_fits_a_slot():
    assert mark_of("resize") == 0x1587095153629715
    assert mark_of("\udc80") != mark_of("\udc81")
    assert all(0 < mark_of(str(number)) < 1 << 64 for number in range(1000))


def test_the_mark_of_an_event_is_never_zero(monkeypatch):
    class Zeros:
        def __init__(self, name, digest_size):
            self.digest = lambda: bytes(digest_size)

    monkeypatch.setattr(module, "blake2b", Zeros)
    assert mark_of("x") == 1


def test_an_event_has_one_lane_and_no_other_event_has_it(slots):
    lanes = Lanes()
    first = [lanes.of(slots, str(number)) for number in range(LANES)]
    assert sorted(first) == list(range(1, LANES + 1))
    assert [lanes.of(slots, str(number)) for number in range(LANES)] == first


def test_the_parent_finds_the_key_of_each_lane(slots):
    lanes = Lanes()
    slots[key_slot(DISPATCHER)] = 1 << 63
    for number in range(LANES):
        assert begun_last(slots, str(number)) == (DISPATCHER, 1 << 63)
        lane = lanes.of(slots, str(number))
        assert begun_last(slots, str(number)) == (lane, 0)
        slots[key_slot(lane)] = 1000 + number
    for number in range(LANES):
        assert begun_last(slots, str(number)) == (lanes.of(slots, str(number)), 1000 + number)
    assert begun_last(slots, "another") == (DISPATCHER, 1 << 63)


def test_when_all_lanes_are_taken_the_parent_knows_of_those_only(slots):
    lanes = Lanes()
    for number in range(LANES):
        slots[key_slot(lanes.of(slots, str(number)))] = 1000 + number
    assert begun_last(slots, "one more") == (DISPATCHER, 0)
    assert lanes.of(slots, "one more") is None
    assert begun_last(slots, "one more") is None
    assert begun_last(slots, "answered by the dispatcher") is None
    assert lanes.of(slots, "7") == begun_last(slots, "7")[0]
    assert [begun_last(slots, str(number))[1] for number in range(LANES)] == [*range(1000, 1000 + LANES)]


# What is not told any more


@pytest.mark.parametrize("is_begun", [False, True])
def test_of_an_event_that_was_forgotten_the_parent_knows_nothing_any_more(slots, is_begun):
    lanes = Lanes()
    for number, event in enumerate(("x", "y"), 7):
        slots[key_slot(lanes.of(slots, event))] = number * is_begun
    slots[key_slot(DISPATCHER)] = 99
    lanes.forget(slots, "x")
    assert begun_last(slots, "x") is None
    assert begun_last(slots, "y") == (lanes.of(slots, "y"), 8 * is_begun)
    assert begun_last(slots, "without a lane") is None


def test_an_event_that_was_forgotten_gets_no_lane_again(slots):
    lanes = Lanes()
    lanes.of(slots, "x")
    lanes.forget(slots, "x")
    lanes.forget(slots, "x")
    before = bytes(slots)
    assert lanes.of(slots, "x") is None
    assert bytes(slots) == before
    assert begun_last(slots, "x") is None


def test_an_event_that_never_had_a_lane_can_be_forgotten(slots):
    lanes = Lanes()
    slots[key_slot(DISPATCHER)] = 99
    lanes.forget(slots, "x")
    assert lanes.of(slots, "x") is None
    assert begun_last(slots, "x") is None
    assert lanes.of(slots, "y") == 1
    assert begun_last(slots, "y") == (1, 0)


def test_the_lane_of_an_event_that_was_forgotten_is_not_given_to_another(slots):
    """What begins in it would seem to be of the other one."""
    lanes = Lanes()
    first = lanes.of(slots, "x")
    lanes.forget(slots, "x")
    others = [lanes.of(slots, str(number)) for number in range(LANES)]
    assert first not in others
    assert others[-1] is None


class Steps:
    """Slots that keep a copy of themselves after each store: what a parent reads if the child dies there."""

    def __init__(self):
        self.slots = memoryview(bytearray(8 * SLOTS)).cast("Q")
        self.copies = [self.copy()]

    def copy(self):
        return memoryview(bytes(self.slots)).cast("Q")

    def __setitem__(self, slot, value):
        self.slots[slot] = value
        self.copies.append(self.copy())


def test_whenever_the_child_dies_the_parent_reads_the_last_key_of_each_event_or_the_one_before():
    """Every state of the page that a program of some hundred steps goes through."""
    steps, lanes, chance = Steps(), Lanes(), random.Random(1)
    begun = {}
    for key in range(1, 400):
        event = chance.choice("abcdefgh")
        before, seen = begun.get(event, 0), len(steps.copies)
        steps[key_slot(lanes.of(steps, event))] = key
        begun[event] = key
        for copy in steps.copies[seen:]:
            assert begun_last(copy, event)[1] in (before, key)
            for other, last in begun.items():
                if other != event:
                    assert begun_last(copy, other)[1] == last
        assert begun_last(steps.copies[-1], event)[1] == key


def test_a_lane_that_two_threads_take_at_once_is_one_lane(slots):
    """The other thread is faster between two steps of this one."""
    lanes = Lanes()

    class Interrupted(dict):
        def setdefault(self, mark, lane):
            lanes._of_marks = dict(self)
            theirs.append(lanes.of(slots, "x"))
            self.update(lanes._of_marks)
            return super().setdefault(mark, lane)

    theirs = []
    lanes._of_marks = Interrupted()
    mine = lanes.of(slots, "x")
    assert theirs == [mine]
    assert begun_last(slots, "x") == (mine, 0)


def test_wherever_the_child_dies_while_it_forgets_the_parent_reads_what_has_begun_or_nothing():
    """The overflow is noted first: without it the event would seem to be in the dispatcher's lane."""
    steps, lanes = Steps(), Lanes()
    steps[key_slot(lanes.of(steps, "x"))] = 7
    steps[key_slot(DISPATCHER)] = 99
    seen = len(steps.copies)
    lanes.forget(steps, "x")
    assert {begun_last(copy, "x") for copy in steps.copies[seen:]} == {(1, 7), None}
    assert begun_last(steps.copies[-1], "x") is None
