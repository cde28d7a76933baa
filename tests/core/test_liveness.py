"""When a peer is dead: every combination of what the kernel can say of a connection."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.liveness import (
    ANSWER_SECONDS,
    LOOK_SECONDS,
    LOOKS,
    MIN_SECONDS,
    UNANSWERED_PROBES,
    OnItsWay,
    Verdict,
    judge,
    keepalive,
    limit,
    look_every,
)

DEAD_AFTER = 30.0
LATE = DEAD_AFTER + 1
IN_FLIGHT = (0, 1, 40)
UNSENT = (0, 1, 4_000_000)
PROBES = (0, 1, UNANSWERED_PROBES - 1, UNANSWERED_PROBES, 15)
TIMES = (0.0, 0.5, ANSWER_SECONDS, 29.999, DEAD_AFTER, LATE, 120.0, 4_000_000.0)
CASES = list(itertools.product(IN_FLIGHT, UNSENT, PROBES, TIMES, TIMES, TIMES))


def verdicts(want):
    """The verdict of each case that ``want(found, seen)`` accepts."""
    cases = [(OnItsWay(*found), seen) for *found, seen in CASES]
    found = {judge(found, seen, DEAD_AFTER) for found, seen in cases if want(found, seen)}
    assert found, "no such case"
    return found


def test_where_nothing_is_on_its_way_there_is_nothing_to_watch():
    assert verdicts(lambda found, seen: not found.in_flight and not found.unsent) == {Verdict.IDLE}


def test_where_something_is_there_is():
    assert Verdict.IDLE not in verdicts(lambda found, seen: found.in_flight or found.unsent)


def test_a_peer_that_has_answered_within_the_time_is_not_dead():
    assert Verdict.DEAD not in verdicts(lambda found, seen: found.since_acknowledged < DEAD_AFTER)


def test_what_was_seen_on_its_way_for_a_shorter_time_is_no_reason():
    """The last answer on a connection that was idle may be days old."""
    assert Verdict.DEAD not in verdicts(lambda found, seen: seen < DEAD_AFTER)


def test_a_peer_that_does_not_read_is_not_dead_before_several_probes_are_unanswered():
    assert Verdict.DEAD not in verdicts(
        lambda found, seen: not found.in_flight and found.probes < UNANSWERED_PROBES
    )


def test_it_is_dead_after_them_and_the_time():
    assert verdicts(
        lambda found, seen: (
            not found.in_flight
            and found.unsent
            and found.probes >= UNANSWERED_PROBES
            and min(found.since_acknowledged, seen) >= DEAD_AFTER
        )
    ) == {Verdict.DEAD}


def test_a_peer_that_has_answered_what_was_sent_last_is_not_dead():
    """It drops what comes, for want of memory, and what is sent again comes ever more rarely."""
    assert Verdict.DEAD not in verdicts(
        lambda found, seen: found.in_flight and found.since_acknowledged <= found.since_sent
    )


def test_a_peer_that_may_still_answer_what_was_sent_last_is_not_dead():
    assert Verdict.DEAD not in verdicts(
        lambda found, seen: found.in_flight and found.since_sent < ANSWER_SECONDS
    )


def test_a_peer_that_answers_nothing_of_what_is_in_flight_is_dead():
    assert verdicts(
        lambda found, seen: (
            found.in_flight
            and ANSWER_SECONDS <= found.since_sent < found.since_acknowledged
            and min(found.since_acknowledged, seen) >= DEAD_AFTER
        )
    ) == {Verdict.DEAD}


def end_after(dead_after, first_again, round_trip=0.0, answers=()):
    """When the end comes for a peer to which something is sent at 0, looked at as Stream.look() does.

    It is sent again after ``first_again`` seconds, and then each time after twice as long. The peer
    acknowledges at the times in ``answers`` that it has dropped it. None if the end does not come.
    """
    sent = [0.0, *itertools.accumulate(first_again * 2**number for number in range(12))]
    every = look_every(dead_after)
    for step in range(1, 16 * LOOKS):
        now = step * every
        found = OnItsWay(
            1,
            0,
            0,
            now - max(time for time in sent if time <= now),
            now - max([0.0, *[time for time in answers if time <= now]]),
            round_trip,
        )
        if judge(found, now - every, dead_after) is Verdict.DEAD:
            return now
    return None


@pytest.mark.parametrize("dead_after", [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 30.0, 300.0])
@pytest.mark.parametrize("first_again", [0.2, 0.22, 0.3, 0.45, 0.8])
def test_the_end_comes_at_most_a_quarter_of_the_time_later(dead_after, first_again):
    assert dead_after <= end_after(dead_after, first_again) <= 1.25 * dead_after


@pytest.mark.parametrize("dead_after", [1.0, 2.0, 3.0])
def test_over_a_slow_network_at_most_a_second_is_left_for_the_answer(dead_after):
    assert end_after(dead_after, 1.0, round_trip=0.6) <= 3 * dead_after


@pytest.mark.parametrize("dead_after", [1.0, 2.0, 8.0, 30.0])
@pytest.mark.parametrize("round_trip", [0.0, 0.05, 0.2, 0.4])
def test_a_peer_that_answers_each_time_lives_however_rarely_it_is_asked(dead_after, round_trip):
    """It has no memory for what comes, so that is sent again and again."""
    first_again = 0.2 + round_trip
    sent = [0.0, *itertools.accumulate(first_again * 2**number for number in range(12))]
    answers = [time + round_trip for time in sent]
    assert end_after(dead_after, first_again, round_trip, answers) is None


def test_time_makes_no_peer_alive_again():
    for (*found, seen), more in itertools.product(CASES, (1.0, 100.0)):
        before = OnItsWay(*found)
        if judge(before, seen, DEAD_AFTER) is Verdict.DEAD:
            later = before._replace(
                since_sent=before.since_sent + more, since_acknowledged=before.since_acknowledged + more
            )
            assert judge(later, seen + more, DEAD_AFTER) is Verdict.DEAD


@pytest.mark.parametrize(
    ("option", "seconds"), [(0.0, 0.0), (0.001, MIN_SECONDS), (1.0, 1.0), (30.0, 30.0), (2e6, 2e6)]
)
def test_a_limit_is_never_shorter_than_the_shortest_and_none_where_there_is_none(option, seconds):
    assert limit(option) == seconds


@given(st.floats(MIN_SECONDS, 2**31 / 1000))
def test_there_are_several_looks_in_the_time_and_they_are_seldom(dead_after):
    assert look_every(dead_after) <= min(LOOK_SECONDS, dead_after / LOOKS)
    assert look_every(dead_after) >= MIN_SECONDS / LOOKS


@given(st.floats(MIN_SECONDS, 2**31 / 1000))
def test_the_kernel_asks_in_time_and_its_limits_are_kept(dead_after):
    asks = keepalive(dead_after)
    assert asks.idle + asks.interval * asks.probes <= max(2.0, dead_after)
    assert min(asks) >= 1
    assert max(asks.idle, asks.interval) <= 32767
    assert asks.probes <= 3


@pytest.mark.parametrize(
    ("dead_after", "asks"),
    [
        (1.0, (1, 1, 1)),
        (2.0, (1, 1, 1)),
        (3.0, (1, 1, 2)),
        (4.9, (2, 1, 2)),
        (10.0, (5, 1, 3)),
        (30.0, (15, 5, 3)),
    ],
)
def test_half_of_the_time_passes_before_the_first_question(dead_after, asks):
    assert keepalive(dead_after) == asks
