"""The books: sums and differences that lose nothing, and what ``stats()`` shows of them."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.books import (
    DROPPED,
    FORWARDED,
    NONE,
    UNHEARD,
    UNREADABLE,
    add,
    are_outcomes,
    by_cause,
    by_place,
    group_of,
    minus,
    more,
    plus,
    shown,
    since,
)

PLACES = {"unheard": UNHEARD, "unreadable": UNREADABLE, "forwarded": FORWARDED, "dropped": DROPPED}
COUNTS = st.integers(0, 10)
OUTCOMES = st.tuples(COUNTS, COUNTS, COUNTS, COUNTS)
PLAIN = ("sent", "acknowledged", "lost", "received", "delivered", "forwarded")
CAUSES = st.dictionaries(st.sampled_from(["full", "link-cut", "sent", "dropped", "unheard"]), COUNTS)


def counters(
    plain: dict[str, int] | None = None,
    acknowledged_as: tuple[int, ...] = NONE,
    received_as: tuple[int, ...] = NONE,
    dropped: dict[str, int] | None = None,
    ended_here: dict[str, int] | None = None,
):
    """As those of a link."""
    return {
        **{("", name): 0 for name in PLAIN},
        **{("", name): count for name, count in (plain or {}).items()},
        **by_place("acknowledgedAs", acknowledged_as),
        **by_place("receivedAs", received_as),
        **by_cause("dropped", dropped or {}),
        **by_cause("endedHere", ended_here or {}),
    }


ANY = st.builds(counters, st.dictionaries(st.sampled_from(PLAIN), COUNTS), OUTCOMES, OUTCOMES, CAUSES, CAUSES)


def without_zeros(found):
    return {key: count for key, count in found.items() if count}


# Outcomes


def test_the_places_are_four_and_each_has_one():
    assert sorted(PLACES.values()) == list(range(len(NONE))) == [0, 1, 2, 3]
    assert NONE == (0, 0, 0, 0)


@pytest.mark.parametrize("place", PLACES.values())
@given(outcomes=OUTCOMES, count=COUNTS)
def test_more_of_one_kind_is_as_much_of_all_others(place, outcomes, count):
    found = more(outcomes, place, count)
    assert found[place] == outcomes[place] + count
    assert [found[other] for other in range(4) if other != place] == [
        outcomes[other] for other in range(4) if other != place
    ]


@given(one=OUTCOMES, other=OUTCOMES)
def test_what_was_added_can_be_taken_away_again(one, other):
    both = plus(one, other)
    assert sum(both) == sum(one) + sum(other)
    assert (minus(both, one), minus(both, other)) == (other, one)
    assert plus(one, NONE) == minus(one, NONE) == one
    assert minus(one, one) == NONE


@given(one=OUTCOMES, place=st.sampled_from(sorted(PLACES.values())), count=COUNTS)
def test_what_is_more_is_what_was_added(one, place, count):
    assert minus(more(one, place, count), one) == more(NONE, place, count)


@given(outcomes=st.tuples(*[st.integers()] * 4))
def test_four_numbers_may_be_outcomes_also_those_that_are_impossible(outcomes):
    assert are_outcomes(outcomes)


class Number(int):
    """One that can do what it likes."""


class Four(tuple):
    """Four that can do what they like."""


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "0000",
        b"0000",
        {},
        (),
        (0,),
        (0, 0, 0),
        (0, 0, 0, 0, 0),
        [0, 0, 0, 0],
        (0, 0, 0, 0.0),
        (0, 0, 0, True),
        (0, 0, 0, None),
        (0, 0, 0, "0"),
        (0, 0, 0, (0,)),
        (0, 0, 0, Number()),
        Four((0, 0, 0, 0)),
    ],
)
def test_anything_else_is_none(value):
    assert not are_outcomes(value)


# Counters


@given(outcomes=OUTCOMES)
def test_outcomes_become_counters_of_their_group_by_their_names(outcomes):
    found = by_place("group", outcomes)
    assert found == {("group", name): outcomes[place] for name, place in PLACES.items()}
    assert group_of(found, "group") == without_zeros({name: found["group", name] for name in PLACES})


def test_causes_become_counters_of_their_group():
    assert by_cause("group", {"full": 2, "link-cut": 0}) == {("group", "full"): 2, ("group", "link-cut"): 0}
    assert by_cause("group", {}) == {}


def test_a_group_has_its_own_counters_only_and_none_that_is_zero():
    found = {("", "sent"): 1, ("dropped", "sent"): 2, ("dropped", "full"): 0, ("droppe", "d"): 4}
    assert group_of(found, "dropped") == {"sent": 2}
    assert group_of(found, "") == {"sent": 1}
    assert group_of(found, "none") == {}


@given(parts=st.lists(ANY))
def test_a_total_has_the_sum_of_each_counter_and_leaves_its_parts_as_they_are(parts):
    before = copy.deepcopy(parts)
    total = {}
    for part in parts:
        add(total, part)
    assert parts == before
    for key in {key for part in parts for key in part}:
        assert total[key] == sum(part.get(key, 0) for part in parts)


@given(one=ANY, other=ANY)
def test_since_then_is_what_has_to_be_added_to_come_to_now(one, other):
    now = dict(one)
    add(now, other)
    before = (dict(now), dict(one))
    found = since(now, one)
    assert (now, one) == before
    assert without_zeros(found) == without_zeros(other)
    add(one, found)
    assert one == now


def test_a_cause_that_is_new_since_then_is_counted_from_nothing():
    assert since({("dropped", "full"): 3}, {}) == {("dropped", "full"): 3}


@given(steps=st.lists(ANY))
def test_books_that_are_closed_again_and_again_add_up_to_what_was_counted(steps):
    """As a link does that is remembered more than once."""
    now, told, past = {}, {}, {}
    for step in steps:
        add(now, step)
        add(past, since(now, told))
        told = dict(now)
        assert without_zeros(since(now, told)) == {}
    assert past == now


# What is shown


def test_counters_are_shown_nested_and_with_what_was_delivered():
    found = counters(
        {"sent": 20, "acknowledged": 15, "lost": 2, "received": 30, "delivered": 12, "forwarded": 9},
        (1, 2, 3, 4),
        (5, 6, 3, 4),
        {"full": 2, "link-cut": 1, "slow-peer": 0},
        {"filtered": 4},
    )
    assert shown(found) == {
        "sent": 20,
        "acknowledged": 15,
        "acknowledgedAs": {"delivered": 5, "unheard": 1, "unreadable": 2, "forwarded": 3, "dropped": 4},
        "lost": 2,
        "dropped": {"full": 2, "link-cut": 1},
        "received": 30,
        "receivedAs": {"delivered": 12, "unheard": 5, "unreadable": 6, "forwarded": 3, "dropped": 4},
        "forwarded": 9,
    }


def test_where_nothing_was_counted_all_is_shown_as_nothing():
    nothing = {"delivered": 0, "unheard": 0, "unreadable": 0, "forwarded": 0, "dropped": 0}
    assert (
        shown({})
        == shown(counters())
        == {
            "sent": 0,
            "acknowledged": 0,
            "acknowledgedAs": nothing,
            "lost": 0,
            "dropped": {},
            "received": 0,
            "receivedAs": nothing,
            "forwarded": 0,
        }
    )


@given(found=ANY)
def test_what_is_shown_adds_up(found):
    before = dict(found)
    view = shown(found)
    assert found == before
    assert view["acknowledged"] == sum(view["acknowledgedAs"].values())
    others = [count for name, count in view["receivedAs"].items() if name != "delivered"]
    assert sum(others) == sum(found["receivedAs", name] for name in PLACES)
    assert all(view["dropped"].values())


@given(one=ANY, other=ANY)
def test_the_sum_of_two_is_shown_as_the_sum_of_what_is_shown(one, other):
    total = dict(one)
    add(total, other)
    both, first, second = shown(total), shown(one), shown(other)

    def at(view, path):
        for name in path:
            view = view.get(name, 0) if isinstance(view, dict) else view
        return view

    names = [(name,) for name, value in both.items() if not isinstance(value, dict)]
    names += [(name, part) for name, value in both.items() if isinstance(value, dict) for part in value]
    for path in names:
        assert at(both, path) == at(first, path) + at(second, path), path


@given(found=ANY)
def test_what_is_shown_is_the_callers(found):
    before = shown(found)
    view = shown(found)
    for part in [part for part in view.values() if isinstance(part, dict)]:
        part.clear()
    assert shown(found) == before
