from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.chunks import AIM_SECONDS, GROWTH, MOST_ITEMS, Chunks


def sizes(chunks: Chunks, seconds: float, count: int) -> list[int]:
    """The next chunks, one after the other, where each item takes so long."""
    found = []
    for _ in range(count):
        size = chunks.next_size()
        found.append(size)
        chunks.took(size, size * seconds)
    return found


def grown(seconds: float) -> Chunks:
    """A map that has come to the size of chunks for items that take so long."""
    chunks = Chunks()
    sizes(chunks, seconds, 20)
    return chunks


# Items that all take the same time


def test_the_first_chunks_have_one_item_until_one_was_measured():
    chunks = Chunks(4)
    assert [chunks.next_size() for _ in range(8)] == [1] * 8
    chunks.took(1, 1e-6)
    assert chunks.next_size() == GROWTH


def test_chunks_grow_step_by_step_until_they_take_as_long_as_is_aimed_at():
    found = sizes(Chunks(), 1e-5, 8)
    assert found[:5] == [1, 4, 16, 64, 256]
    assert found[5:] == [pytest.approx(AIM_SECONDS / 1e-5, abs=1)] * 3


@pytest.mark.parametrize("seconds", [AIM_SECONDS, AIM_SECONDS * 1.01, 0.1, 5.0, 1e6])
def test_items_that_take_longer_than_that_come_one_by_one(seconds):
    assert sizes(Chunks(), seconds, 10) == [1] * 10


@pytest.mark.parametrize("seconds", [0.0, 5e-324, 1e-12, AIM_SECONDS / MOST_ITEMS])
def test_items_that_take_no_time_come_in_the_largest_chunks(seconds):
    assert sizes(Chunks(), seconds, 10) == [1, 4, 16, 64, 256, 1024, 4096, *[MOST_ITEMS] * 3]


def test_no_items_were_measured_in_no_chunk():
    chunks = Chunks()
    chunks.took(0, 5.0)
    assert sizes(chunks, 0.0, 2) == [1, 4]


def test_many_that_were_measured_at_the_same_time_are_one_step():
    chunks = Chunks()
    for _ in range(20):
        chunks.took(1, 0.0)
    assert [chunks.next_size() for _ in range(20)] == [GROWTH] * 20
    for _ in range(20):
        chunks.took(GROWTH, 0.0)
    assert [chunks.next_size() for _ in range(20)] == [GROWTH**2] * 20


def test_a_chunk_that_comes_back_late_from_a_smaller_time_takes_nothing_back():
    chunks = grown(1e-5)
    size = chunks.next_size()
    chunks.took(1, 1e-5)
    assert chunks.next_size() == pytest.approx(size, rel=0.01)


# Items that take longer than others


def test_one_slow_item_after_many_fast_ones_makes_small_chunks_at_once():
    chunks = grown(0.0)
    assert chunks.next_size() == MOST_ITEMS
    chunks.took(MOST_ITEMS, 1.0)  # one of them has taken a second
    assert chunks.next_size() == AIM_SECONDS / (1.0 / MOST_ITEMS)


def test_from_then_on_chunks_grow_again_by_steps():
    chunks = grown(0.0)
    chunks.took(1, 1.0)
    found = sizes(chunks, 0.0, 40)
    assert found[0] == 1
    assert found[-1] == MOST_ITEMS
    assert all(after <= GROWTH * before for before, after in itertools.pairwise(found))


def test_items_that_become_slower_have_the_right_chunks_after_one():
    chunks = grown(1e-5)
    size = chunks.next_size()
    chunks.took(size, size * 1e-3)
    assert chunks.next_size() == pytest.approx(5, abs=1)


def test_items_that_become_a_little_slower_are_followed_within_a_few():
    chunks = grown(1e-5)
    assert sizes(chunks, 1.5e-5, 12)[-1] == pytest.approx(AIM_SECONDS / 1.5e-5, rel=0.05)


def test_items_that_become_faster_are_followed_within_a_few():
    chunks = grown(1e-3)
    assert sizes(chunks, 1e-5, 20)[-1] == pytest.approx(AIM_SECONDS / 1e-5, rel=0.05)


def test_a_chunk_that_took_less_than_is_aimed_at_is_never_late():
    chunks = Chunks()
    for _ in range(10):
        chunks.took(1, 0.0)
    chunks.took(1, 0.8 * AIM_SECONDS)
    assert chunks.next_size() == GROWTH


@pytest.mark.parametrize("fast", [1e-5, 1e-4])
def test_mixed_items_come_in_chunks_of_about_the_time_that_is_aimed_at(fast):
    """Nine of ten take so long, the tenth takes ten times as long."""
    chunks = Chunks()
    rolled = random.Random(1)
    times, mean = [], fast * 1.9
    for _ in range(400):
        size = chunks.next_size()
        seconds = sum(fast * (10 if rolled.random() < 0.1 else 1) for _ in range(size))
        chunks.took(size, seconds)
        times.append(seconds)
    late = times[20:]
    assert AIM_SECONDS / 1.5 < sum(late) / len(late) < AIM_SECONDS * 1.2
    assert max(late) < 3 * AIM_SECONDS + 10 * mean


def test_after_a_shrink_late_news_of_a_large_chunk_make_no_large_step():
    chunks = grown(0.0)
    chunks.took(1, 1.0)
    assert chunks.next_size() == 1
    chunks.took(MOST_ITEMS, 0.0)
    chunks.took(MOST_ITEMS, 0.0)
    assert chunks.next_size() <= GROWTH


# The end of an input whose length is known


def test_towards_the_end_chunks_become_smaller():
    chunks = Chunks(2, 100)
    chunks.took(1, 0.0)
    chunks.took(4, 0.0)
    chunks.took(16, 0.0)
    found = [chunks.next_size() for _ in range(40)]
    assert found[:4] == [4, 16, 20, 15]
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[-1] == 1
    left = 100
    for size in found:
        assert size == 1 or size <= left / 4
        left -= size


def test_few_items_come_one_by_one():
    chunks = Chunks(4, 15)
    chunks.took(1, 0.0)
    assert [chunks.next_size() for _ in range(15)] == [1] * 15


@pytest.mark.parametrize("length", [0, 1, 3, -1])
def test_an_input_with_more_items_than_its_length_goes_on_one_by_one(length):
    chunks = Chunks(1, length)
    assert sizes(chunks, 0.0, 20) == [1] * 20


def test_without_a_length_there_is_no_such_limit():
    assert sizes(Chunks(100), 0.0, 7)[-1] == 4096


def test_there_is_at_least_one_worker():
    chunks = Chunks(0, 100)
    chunks.took(1, 0.0)
    assert chunks.next_size() == GROWTH


# Whatever is measured

TIMES = st.one_of(st.just(0.0), st.floats(0, 1e-3), st.floats(0, 1e9))
STEPS = st.lists(st.tuples(st.booleans(), TIMES), max_size=80)


@given(STEPS, st.integers(1, 9), st.none() | st.integers(0, 5000))
def test_the_bounds_hold_whatever_is_measured_and_in_whatever_order(steps, workers, length):
    chunks = Chunks(workers, length)
    open_chunks: list[int] = []
    given_out, before, largest = 0, 1, 1
    for is_asked, seconds in steps:
        if is_asked or not open_chunks:
            size = chunks.next_size()
            assert 1 <= size <= MOST_ITEMS
            assert size <= GROWTH * before
            assert size <= GROWTH * largest
            if length is not None:
                assert size == 1 or size <= (length - given_out) / (2 * workers)
            open_chunks.append(size)
            before = size
            given_out += size
        else:
            done = open_chunks.pop(len(open_chunks) // 2)
            chunks.took(done, seconds)
            largest = max(largest, done)


@given(st.integers(0, 3000), st.booleans(), st.integers(1, 9), st.lists(TIMES, min_size=1, max_size=20))
def test_all_chunks_together_are_the_input(count, is_known, workers, times):
    chunks, items = Chunks(workers, count if is_known else None), iter(range(count))
    taken = []
    for seconds in itertools.cycle(times):
        part = list(itertools.islice(items, chunks.next_size()))
        if not part:
            break
        taken += part
        chunks.took(len(part), seconds)
    assert taken == list(range(count))


@given(STEPS)
def test_a_chunk_that_took_very_long_is_followed_by_one_item_if_it_had_one(steps):
    chunks = Chunks()
    for _, seconds in steps:
        chunks.took(chunks.next_size(), seconds)
    chunks.took(1, 1e12)
    assert chunks.next_size() == 1


# Workers that do them, in a time that is only counted

JOB_SECONDS = 1e-4  # what a job costs beside its items


class Course:
    """How a map went: when each worker had nothing more to do, how many chunks there were."""

    def __init__(self, ends: list[float], jobs: int, work: float) -> None:
        self.ends = ends
        self.jobs = jobs
        self.work = work  # the time that all items take together

    @property
    def overhead(self) -> float:
        return self.jobs * JOB_SECONDS / self.work

    @property
    def imbalance(self) -> float:
        """From when the first worker had nothing to do to the end."""
        return max(self.ends) - min(self.ends)

    @property
    def stretch(self) -> float:
        """How many times as long as it takes at the best."""
        return max(self.ends) * len(self.ends) / self.work


def course(items: list[float], workers: int, *, is_known: bool = True, ahead: int = 1) -> Course:
    """Let workers do items of these times, each with so many chunks ahead of the one that it does."""
    chunks = Chunks(workers, len(items) if is_known else None)
    left = iter(items)
    waiting: list[deque[list[float]]] = [deque() for _ in range(workers)]
    running: list[tuple[float, int, int, float]] = []  # its end, worker, its items, their seconds
    ends, jobs = [0.0] * workers, 0

    def begin(worker: int, now: float) -> None:
        if waiting[worker]:
            part = waiting[worker].popleft()
            heapq.heappush(running, (now + JOB_SECONDS + sum(part), worker, len(part), sum(part)))
        ends[worker] = now

    def give(worker: int) -> bool:
        nonlocal jobs
        part = list(itertools.islice(left, chunks.next_size()))
        if part:
            jobs += 1
            waiting[worker].append(part)
        return bool(part)

    for _ in range(1 + ahead):
        for worker in range(workers):
            give(worker)
    for worker in range(workers):
        begin(worker, 0.0)
    while running:
        now, worker, count, seconds = heapq.heappop(running)
        chunks.took(count, seconds)
        give(worker)
        begin(worker, now)
    assert not any(waiting)
    return Course(ends, jobs, sum(items))


def constant(seconds: float, count: int) -> list[float]:
    return [seconds] * count


def uneven(seconds: float, count: int) -> list[float]:
    rolled = random.Random(2)
    return [rolled.expovariate(1 / seconds) for _ in range(count)]


def mixed(seconds: float, count: int) -> list[float]:
    """One of a hundred takes fifty times as long as the others."""
    rolled = random.Random(3)
    return [seconds * (50 if rolled.random() < 0.01 else 1) / 1.49 for _ in range(count)]


def rising(seconds: float, count: int) -> list[float]:
    """The later ones take longer."""
    return [2 * seconds * number / count for number in range(1, count + 1)]


KINDS: list[Callable[[float, int], list[float]]] = [constant, uneven, mixed, rising]


def of(kind: Callable[[float, int], list[float]], seconds: float, work: float = 2.0) -> list[float]:
    """Items of a kind that take so long each on average, and together about so long."""
    return kind(seconds, int(work / seconds))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [2e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_what_the_jobs_cost_is_little_and_the_workers_end_together(kind, seconds, workers):
    items = of(kind, seconds)
    found = course(items, workers)
    assert found.overhead < 0.03  # 2 % at the size that is aimed at; a little more at both ends
    assert found.imbalance < 2 * JOB_SECONDS + 2 * max(items)
    assert found.stretch < 1.03 + max(items) * workers / found.work


@pytest.mark.parametrize("workers", [2, 8])
def test_where_the_length_is_not_known_a_worker_ends_at_most_two_chunks_late(workers):
    found = course(of(constant, 1e-4), workers, is_known=False)
    assert found.imbalance < 3 * AIM_SECONDS
    known = course(of(constant, 1e-4), workers)
    assert known.imbalance < found.imbalance


@pytest.mark.parametrize("workers", [1, 4])
def test_long_items_cost_a_job_each_and_nothing_else(workers):
    found = course([0.05] * 40, workers)
    assert found.jobs == 40
    assert found.stretch < 1.01


def test_short_inputs_are_shared_by_all_workers():
    found = course([0.1] * 8, 4)
    assert found.ends == [pytest.approx(2 * (0.1 + JOB_SECONDS))] * 4


def test_a_slow_item_is_not_followed_by_many_others_in_the_same_chunk():
    items = [1e-5] * 50_000
    items[25_000] = 1.0
    found = course(items, 4)
    # It begins after a quarter of what comes before it, and with it wait only its own chunk and the next one.
    assert max(found.ends) < 0.25 / 4 * 1.05 + 1.0 + 2.5 * AIM_SECONDS


def test_without_chunks_that_grow_the_jobs_would_cost_more_than_the_items():
    items = of(constant, 2e-5)
    assert len(items) * JOB_SECONDS > 4 * sum(items)
    assert course(items, 4).jobs < len(items) / 100
