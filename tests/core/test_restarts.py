from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.restarts import GiveUp, NoRestart, Restart, RestartDecision, RestartPolicy

POLICIES = [True, False, "on-failure"]
EXITCODES = [0, 1, 3, -9, -15, None]
BOOLS = [False, True]


def end(
    policy: RestartPolicy, *, lived: float = 1.0, exitcode: int | None = 1, **how: bool
) -> RestartDecision:
    """One life of ``lived`` seconds; the clock begins anywhere, here at 1000."""
    flags = {"finished": False, "wanted": False, "refused": False, "explicit": False, **how}
    policy.started(1000.0)
    return policy.exited(1000.0 + lived, exitcode, **flags)


def waits(policy: RestartPolicy, count: int, lived: float = 1.0) -> list[float]:
    decisions = [end(policy, lived=lived) for _ in range(count)]
    assert all(isinstance(decision, Restart) for decision in decisions)
    return [decision.after for decision in decisions if isinstance(decision, Restart)]


# What follows one exit: every combination, against the rules written the other way round.


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("exitcode", EXITCODES)
def test_one_exit_is_decided_by_the_rules(policy, exitcode):
    for finished, wanted, refused, explicit in itertools.product(BOOLS, repeat=4):
        decision = end(
            RestartPolicy(policy, 0.5, None),
            exitcode=exitcode,
            finished=finished,
            wanted=wanted,
            refused=refused,
            explicit=explicit,
        )
        policy_allows = policy is True or (policy == "on-failure" and exitcode != 0)
        if policy_allows and not wanted and not refused and (explicit or not finished):
            assert decision == Restart(0.5)
        else:
            assert decision == NoRestart()


@pytest.mark.parametrize("exitcode", EXITCODES)
def test_true_restarts_after_every_exit(exitcode):
    assert end(RestartPolicy(True, 1.0, None), exitcode=exitcode) == Restart(1.0)


@pytest.mark.parametrize("exitcode", EXITCODES)
def test_false_never_restarts(exitcode):
    assert end(RestartPolicy(False, 1.0, None), exitcode=exitcode, explicit=True) == NoRestart()


def test_on_failure_restarts_what_did_not_end_with_zero():
    restarted = [
        code
        for code in EXITCODES
        if end(RestartPolicy("on-failure", 1.0, None), exitcode=code) == Restart(1.0)
    ]
    assert restarted == [1, 3, -9, -15, None]


def test_a_finished_function_is_done():
    assert end(RestartPolicy(True, 1.0, None), exitcode=0, finished=True) == NoRestart()


def test_a_finished_function_is_restarted_if_this_child_was_told_so():
    decision = end(RestartPolicy(True, 1.0, None), exitcode=0, finished=True, explicit=True)
    assert decision == Restart(1.0)


def test_a_wanted_end_is_final_whatever_else_is_said():
    assert end(RestartPolicy(True, 1.0, None), exitcode=-9, wanted=True, explicit=True) == NoRestart()


def test_a_refusal_is_final_whatever_else_is_said():
    assert end(RestartPolicy(True, 1.0, None), refused=True, explicit=True) == NoRestart()


# Young deaths.


def test_the_first_four_young_deaths_wait_the_delay_then_it_doubles_up_to_30_seconds():
    assert waits(RestartPolicy(True, 1.0, None), 11) == [1, 1, 1, 1, 2, 4, 8, 16, 30, 30, 30]


def test_without_a_delay_the_doubling_begins_at_100_milliseconds():
    expected = [0, 0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert waits(RestartPolicy(True, 0.0, None), 15) == pytest.approx(expected)


def test_a_delay_above_30_seconds_is_kept():
    assert waits(RestartPolicy(True, 60.0, None), 8) == [60] * 8


def test_a_million_young_deaths_still_wait_30_seconds():
    policy = RestartPolicy(True, 1.0, None)
    policy.young_deaths = 1_000_000
    assert end(policy) == Restart(30.0)


def test_ten_seconds_of_life_clear_the_record():
    policy = RestartPolicy(True, 1.0, None)
    assert waits(policy, 6)[-1] == 4
    assert end(policy, lived=10.0) == Restart(1.0)
    assert waits(policy, 5) == [1, 1, 1, 1, 2]


def test_a_moment_less_than_ten_seconds_is_young():
    policy = RestartPolicy(True, 1.0, None)
    assert waits(policy, 5, lived=9.999) == [1, 1, 1, 1, 2]


def test_old_deaths_never_wait_longer_than_the_delay():
    assert waits(RestartPolicy(True, 1.0, None), 50, lived=10.0) == [1] * 50


def test_an_exit_without_a_start_is_a_young_death():
    policy = RestartPolicy(True, 1.0, 1)
    decision = policy.exited(5.0, None, finished=False, wanted=False, refused=False, explicit=False)
    assert decision == GiveUp(1)


def test_the_start_of_an_earlier_life_does_not_count_for_the_next():
    policy = RestartPolicy(True, 1.0, 1)
    flags = {"finished": False, "wanted": False, "refused": False, "explicit": False}
    policy.started(0.0)
    assert policy.exited(100.0, 1, **flags) == Restart(1.0)
    assert policy.exited(100.0, 1, **flags) == GiveUp(1)


# maxRestarts.


@pytest.mark.parametrize("max_restarts", [1, 2, 5, 8])
def test_it_gives_up_at_the_young_death_that_was_set(max_restarts):
    policy = RestartPolicy(True, 1.0, max_restarts)
    waits(policy, max_restarts - 1)
    assert end(policy) == GiveUp(max_restarts)


def test_deaths_after_a_long_life_do_not_count_towards_giving_up():
    policy = RestartPolicy(True, 1.0, 3)
    for _ in range(10):
        waits(policy, 2)
        assert end(policy, lived=60.0) == Restart(1.0)


def test_a_long_life_never_makes_it_give_up():
    assert end(RestartPolicy(True, 1.0, 1), lived=10.0) == Restart(1.0)


def test_an_end_that_is_final_anyway_is_no_giving_up():
    assert end(RestartPolicy(True, 1.0, 1), wanted=True) == NoRestart()


# Settable later.


def test_a_policy_set_later_counts_from_the_next_exit():
    policy = RestartPolicy(True, 1.0, None)
    assert end(policy) == Restart(1.0)
    policy.policy = False
    assert end(policy) == NoRestart()
    policy.policy = "on-failure"
    assert end(policy, exitcode=0) == NoRestart()
    assert end(policy, exitcode=1) == Restart(1.0)


def test_delay_and_limit_set_later_count_from_the_next_exit():
    policy = RestartPolicy(True, 1.0, None)
    policy.delay = 3.0
    assert end(policy) == Restart(3.0)
    policy.max_restarts = 2
    assert end(policy) == GiveUp(2)


# Laws.


@given(
    delay=st.floats(0, 2_147_483),
    lives=st.lists(st.floats(0, 20), max_size=60),
    max_restarts=st.none() | st.integers(1, 20),
)
def test_the_wait_is_never_below_the_delay_nor_above_30_seconds_or_the_delay(delay, lives, max_restarts):
    policy = RestartPolicy(True, delay, max_restarts)
    for lived in lives:
        decision = end(policy, lived=lived)
        if isinstance(decision, Restart):
            assert delay <= decision.after <= max(delay, 30.0)
        else:
            assert decision == GiveUp(policy.young_deaths)
            assert policy.young_deaths >= (max_restarts or 0)


# Decisions are values.


def test_decisions_compare_by_type_and_fields():
    assert Restart(1.0) == Restart(1.0)
    assert Restart(1.0) != Restart(2.0)
    assert Restart(1) != GiveUp(1)
    assert NoRestart() == NoRestart()
    assert NoRestart() != None  # noqa: E711  the comparison is what is tested
    assert len({Restart(1.0), Restart(1.0), GiveUp(1), NoRestart(), NoRestart()}) == 3


def test_decisions_are_frozen():
    decision = Restart(1.0)
    with pytest.raises(AttributeError):
        decision.after = 2.0
    with pytest.raises(AttributeError):
        del decision.after
    assert decision == Restart(1.0)


def test_decisions_say_what_they_are():
    assert [repr(d) for d in (Restart(0.5), GiveUp(5), NoRestart())] == [
        "Restart(0.5)",
        "GiveUp(5)",
        "NoRestart()",
    ]
