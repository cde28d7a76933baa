from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core import known_functions
from ipevents._core.known_functions import KnownFunctions


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Worker:
    """The other side: it has what it was sent, and forgets what it is told to."""

    def __init__(self) -> None:
        self.has: dict[bytes, int] = {}

    def takes(self, name: bytes, size: int, is_sent: bool, forgotten: tuple[bytes, ...]) -> None:
        assert is_sent or not forgotten, "nothing is forgotten without need"
        for old in forgotten:
            del self.has[old]  # which it has
        if is_sent:
            assert name not in self.has, "nothing is sent twice"
            self.has[name] = size
        assert name in self.has, "the job has its function"


def test_a_function_is_sent_with_its_first_job_only():
    known = KnownFunctions()
    assert known.needs(key(1), 100) == (True, ())
    assert [known.needs(key(1), 100) for _ in range(3)] == [(False, ())] * 3
    assert known.needs(key(2), 100) == (True, ())
    assert known.needs(key(1), 100) == (False, ())
    assert len(known) == 2


def test_the_one_that_was_not_used_for_longest_makes_room():
    known = KnownFunctions(3)
    for number in (1, 2, 3):
        known.needs(key(number), 1)
    known.needs(key(1), 1)
    assert known.needs(key(4), 1) == (True, (key(2),))
    assert known.needs(key(2), 1) == (True, (key(3),))
    assert known.needs(key(1), 1) == (False, ())
    assert len(known) == 3


def test_as_many_go_as_the_new_one_needs_room_for_the_oldest_first():
    known = KnownFunctions(10, 100)
    for number in range(5):
        known.needs(key(number), 20)
    assert known.needs(key(5), 50) == (True, (key(0), key(1), key(2)))
    assert known.needs(key(6), 10) == (True, ())
    assert known.needs(key(7), 1) == (True, (key(3),))


def test_one_that_is_larger_than_the_bound_is_sent_and_is_all_that_there_is():
    known = KnownFunctions(10, 100)
    known.needs(key(1), 10)
    known.needs(key(2), 10)
    assert known.needs(key(3), 1000) == (True, (key(1), key(2)))
    assert known.needs(key(3), 1000) == (False, ())
    assert known.needs(key(1), 10) == (True, (key(3),))
    assert known.needs(key(2), 90) == (True, ())


def test_one_that_is_exactly_as_large_as_the_room_fits():
    known = KnownFunctions(10, 100)
    known.needs(key(1), 60)
    assert known.needs(key(2), 40) == (True, ())
    assert known.needs(key(3), 0) == (True, ())


@pytest.mark.parametrize("most", [0, 1])
def test_the_function_of_the_job_at_hand_is_kept_whatever_the_bound(most):
    known = KnownFunctions(most)
    assert known.needs(key(1), 1) == (True, ())
    assert known.needs(key(1), 1) == (False, ())
    assert known.needs(key(2), 1) == (True, (key(1),))


def test_the_bounds_are_those_that_are_documented():
    assert (known_functions.MOST_FUNCTIONS, known_functions.MOST_BYTES) == (256, 16 * 1024 * 1024)
    known = KnownFunctions()
    assert [known.needs(key(number), 0) for number in range(256)] == [(True, ())] * 256
    assert known.needs(key(256), 0) == (True, (key(0),))
    assert KnownFunctions().needs(key(0), known_functions.MOST_BYTES + 1) == (True, ())


def run(most: int, most_bytes: int, sizes: dict[int, int], jobs: list[int]) -> None:
    """Hand out jobs by the number of their functions, and compare the two sides after each."""
    known, worker = KnownFunctions(most, most_bytes), Worker()
    uses: list[int] = []
    for number in jobs:
        size = sizes[number]
        before = set(worker.has)
        is_sent, forgotten = known.needs(key(number), size)
        worker.takes(key(number), size, is_sent, forgotten)
        assert is_sent == (key(number) not in before)
        assert len(known) == len(worker.has) <= max(most, 1)
        total = sum(worker.has.values())
        assert total <= most_bytes or len(worker.has) == 1
        # What is left was used after all that went, and without the last that went there was no room yet.
        last = {name: at for at, name in enumerate(uses)}
        stayed = [last[int.from_bytes(name, "big")] for name in worker.has if name in before]
        went = [last[int.from_bytes(name, "big")] for name in forgotten]
        assert went == sorted(went)
        assert not went or not stayed or is_sent and max(went) < min(stayed)
        if forgotten:
            one_less = total + sizes[int.from_bytes(forgotten[-1], "big")]
            assert len(worker.has) + 1 > most or one_less > most_bytes
        uses.append(number)


def test_both_sides_agree_after_any_short_sequence():
    sizes = {0: 1, 1: 2, 2: 3, 3: 9}
    for most, most_bytes in itertools.product((1, 2, 3), (2, 5, 8)):
        for jobs in itertools.product(sizes, repeat=5):
            run(most, most_bytes, sizes, list(jobs))


@given(
    st.integers(1, 6),
    st.integers(0, 60),
    st.lists(st.integers(0, 30), min_size=10, max_size=10),
    st.lists(st.integers(0, 9), max_size=80),
)
def test_both_sides_agree_after_any_sequence(most, most_bytes, sizes, jobs):
    run(most, most_bytes, dict(enumerate(sizes)), jobs)
