from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.bounded import Bounded, size_of


def test_what_is_kept_is_there_until_the_next_has_no_room():
    kept: Bounded[str, int] = Bounded(10)
    kept.keep("a", 1, 4)
    kept.keep("b", 2, 6)
    assert kept == {"a": 1, "b": 2}
    kept.keep("c", 3, 1)
    assert kept == {"c": 3}


def test_after_clearing_there_is_room_for_all():
    kept: Bounded[str, int] = Bounded(10)
    kept.keep("a", 1, 10)
    kept.clear()
    assert kept == {}
    kept.keep("b", 2, 4)
    kept.keep("c", 3, 6)
    assert kept == {"b": 2, "c": 3}


@given(st.lists(st.integers(0, 10)))
def test_never_more_is_kept_than_there_is_room_for_and_always_the_last(sizes):
    kept: Bounded[int, int] = Bounded(10)
    for number, size in enumerate(sizes):
        kept.keep(number, size, size)
        assert sum(kept.values()) <= 10
        assert number in kept


def test_each_name_counts():
    assert 0 < size_of(()) < size_of(("",)) < size_of(("a" * 100,)) < size_of(("a" * 100, "b"))
