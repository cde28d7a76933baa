from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.repeats import Repeats, more


def test_the_first_of_a_kind_is_told_and_the_next_one_only_after_some_time():
    repeats = Repeats()
    assert repeats.comes("a", 5.0, 1.0)
    assert repeats.told("a", 5.0) == 0
    assert not repeats.comes("a", 5.9, 1.0)
    assert repeats.comes("a", 6.0, 1.0)
    assert repeats.told("a", 6.0) == 1


def test_while_one_waits_no_other_of_its_kind_does_however_long_that_takes():
    repeats = Repeats()
    assert repeats.comes("a", 0.0, 1.0)
    assert [repeats.comes("a", float(now), 1.0) for now in range(1, 100)] == [False] * 99
    assert repeats.told("a", 100.0) == 99
    assert not repeats.comes("a", 100.5, 1.0), "the time counts from when it was told"


def test_one_kind_hides_no_other():
    repeats = Repeats()
    assert [repeats.comes(kind, 0.0, 1.0) for kind in "aabb"] == [True, False, True, False]


def test_what_waited_in_a_queue_that_is_gone_is_counted_and_waits_no_more():
    repeats = Repeats()
    assert repeats.comes("a", 0.0, 1.0)
    repeats.nothing_waits()
    assert repeats.comes("a", 0.0, 1.0)
    assert repeats.told("a", 0.0) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_only_so_many_kinds_are_remembered_and_those_that_wait_first(steps):
    repeats = Repeats(3)
    for is_told, kind in steps:
        if repeats.comes(kind, 0.0, 1.0) and is_told:
            repeats.told(kind, 0.0)
        assert len(repeats) <= 3


def test_ever_new_kinds_do_not_displace_one_that_waits():
    repeats = Repeats(3)
    assert repeats.comes("waits", 0.0, 1.0)
    for kind in range(10):
        assert repeats.comes(kind, 0.0, 1.0)
        repeats.told(kind, 0.0)
    assert not repeats.comes("waits", 0.0, 1.0)


def test_a_strict_one_tells_no_more_kinds_within_the_time_than_it_remembers_and_counts_the_others():
    repeats = Repeats(3, strict=True)
    assert [repeats.comes(kind, 0.0, 1.0) for kind in "abcdabe"] == [True, True, True, *[False] * 4]
    assert (repeats.take_others(), repeats.take_others()) == (2, 0)
    assert repeats.told("a", 0.0) == 1
    assert not repeats.comes("d", 0.5, 1.0)
    assert repeats.comes("d", 1.0, 1.0), "the time of one that was told is over"
    assert not repeats.comes("e", 1.0, 1.0)
    assert repeats.take_others() == 2


def test_what_a_strict_one_forgets_is_counted_among_the_others():
    repeats = Repeats(1, strict=True)
    assert repeats.comes("a", 0.0, 1.0)
    repeats.told("a", 0.0)
    assert not repeats.comes("a", 0.5, 1.0)
    assert repeats.comes("b", 1.0, 1.0)
    assert repeats.take_others() == 1


def test_where_all_wait_in_a_strict_one_no_other_kind_does_however_long_that_takes():
    repeats = Repeats(2, strict=True)
    assert [repeats.comes(kind, 0.0, 1.0) for kind in "ab"] == [True, True]
    assert [repeats.comes(number, float(number), 1.0) for number in range(1, 50)] == [False] * 49
    repeats.nothing_waits()
    assert repeats.comes("c", 100.0, 1.0)
    assert repeats.take_others() == 49 + 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 0.4)), max_size=60))
def test_a_strict_one_loses_no_report(steps):
    repeats = Repeats(3, strict=True)
    now, told, waiting = 0.0, 0, []
    for is_told, kind, later in steps:
        now += later
        if repeats.comes(kind, now, 1.0):
            waiting.append(kind)
        if is_told and waiting:
            told += 1 + repeats.told(waiting.pop(0), now)
        assert len(repeats) <= 3
    told += sum(1 + repeats.told(kind, now) for kind in waiting)
    hidden = sum(repeats.told(kind, now) for kind in range(10))
    assert told + hidden + repeats.take_others() == len(steps)


def test_what_is_told_of_a_kind_that_was_forgotten_hides_nothing():
    assert Repeats().told("a", 0.0) == 0


def test_how_many_were_left_out_is_said_if_there_were_any():
    assert more(0) == ""
    assert more(2) == " (2 more of this kind were not told)"
    assert more(2, "logged") == " (2 more of this kind were not logged)"
    assert more(2, others=3) == " (2 more of this kind and 3 of others were not told)"
