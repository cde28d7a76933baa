from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.neighbour_names import Names

ADDRESS = "127.0.0.1:50000"
A, B, C = 0xAAA_000001, 0xBBB_000002, 0xCCC_000001  # the last six digits of A and C agree


def free(_: str) -> bool:
    return False


def test_the_first_gets_what_it_wants_and_keeps_it():
    names = Names()
    assert [names.give(ADDRESS, A, free) for _ in range(3)] == [ADDRESS] * 3


def test_another_one_never_gets_a_name_that_was_used_before():
    names = Names()
    names.give(ADDRESS, A, free)
    assert names.give(ADDRESS, B, free) == f"{ADDRESS}-000002"


def test_it_keeps_that_other_name_under_which_it_comes_again():
    names = Names()
    names.give(ADDRESS, A, free)
    name = names.give(ADDRESS, B, free)
    assert names.give(name, B, free) == name


def test_two_whose_numbers_end_alike_are_told_apart():
    names = Names()
    for incarnation in (B, A):
        names.give(ADDRESS, incarnation, free)
    assert names.give(ADDRESS, C, free) == f"{ADDRESS}-0000000ccc000001"


def test_what_is_taken_just_now_is_not_given():
    assert Names().give("4711", A, {"4711"}.__contains__) == "4711-000001"
    assert Names().give("4711", A, {"4711", "4711-000001"}.__contains__) == "4711-0000000aaa000001"


@pytest.mark.parametrize("wanted", ["n" * 64, "\u00e4" * 32, "n" * 47 + "\u00e4" * 8])
def test_a_name_always_fits_into_the_handshake(wanted):
    names = Names()
    names.give(wanted, A, free)
    assert len(names.give(wanted, B, free).encode()) <= 64


def test_the_longest_unused_is_forgotten():
    names = Names(most=2)
    names.give("1", A, free)
    names.give("2", A, free)
    names.give("1", A, free)
    names.give("3", A, free)
    assert names.give("1", B, free) == "1-000002"
    assert Names(most=2).give("2", B, free) == "2"


@pytest.mark.parametrize("comers", list(product((A, B, C), repeat=4)), ids=str)
def test_whoever_comes_in_whatever_order_no_name_has_two_owners(comers):
    names, owners = Names(), {}
    for incarnation in comers:
        name = names.give(ADDRESS, incarnation, free)
        assert owners.setdefault(name, incarnation) == incarnation
    assert len(owners) == len(set(comers))


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "1-000001"]), st.integers(0, 3), st.booleans())))
def test_no_name_has_two_owners_also_where_some_are_taken(comers):
    names, owners = Names(), {}
    for wanted, incarnation, taken in comers:
        name = names.give(wanted, incarnation, {wanted}.__contains__ if taken else free)
        assert owners.setdefault(name, incarnation) == incarnation
