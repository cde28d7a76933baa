"""The watch over a child that may hang: when it is asked, and what its answers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.vigil import LOOK, Act, Vigil

LIMIT = 8.0
STEP = LOOK * LIMIT


def asleep(now=0.0):
    """A vigil over a child that has answered that nothing runs in it."""
    vigil = Vigil(LIMIT)
    assert vigil.answered(now, 1, None, owes=False) is Act.SLEEP
    return vigil


def asked(now=0.0):
    """A vigil whose second question was sent at this time."""
    vigil = asleep(now)
    vigil.begins(now)
    assert vigil.look(now + STEP) is Act.ASK
    return vigil, now + STEP


def test_a_child_that_begins_has_all_the_time_that_it_needs_to_connect():
    vigil = Vigil(LIMIT)
    assert (vigil.number, vigil.next_at) == (1, None)
    assert vigil.look(1e9) is Act.NOTHING
    vigil.connected(5.0)
    assert vigil.look(5.0 + LIMIT) is Act.SILENT


def test_a_connection_after_the_first_answer_changes_nothing():
    vigil = asleep()
    vigil.connected(5.0)
    assert vigil.next_at is None


def test_while_nothing_runs_and_nothing_is_owed_nobody_wakes():
    vigil = asleep()
    assert vigil.next_at is None
    assert vigil.look(1e9) is Act.NOTHING


def test_what_begins_is_asked_about_a_step_later_and_only_once():
    vigil = asleep()
    vigil.begins(10.0)
    vigil.begins(11.0)
    assert vigil.next_at == 10.0 + STEP
    assert vigil.look(10.0 + STEP - 0.001) is Act.NOTHING
    assert vigil.look(10.0 + STEP) is Act.ASK
    assert vigil.number == 2
    assert vigil.look(10.0 + STEP) is Act.NOTHING


def test_what_begins_while_an_answer_is_awaited_changes_nothing():
    vigil, at = asked()
    before = vigil.next_at
    vigil.begins(at)
    assert vigil.next_at == before


def test_a_child_that_has_not_handled_all_is_asked_again():
    vigil, at = asked()
    assert vigil.answered(at, 2, None, owes=True) is Act.NOTHING
    assert vigil.next_at == at + STEP
    assert vigil.look(at + STEP) is Act.ASK


@pytest.mark.parametrize(
    ("running", "next_in"), [(0.0, STEP), (LIMIT / 2, STEP), (LIMIT - 0.5, 0.5), (LIMIT - 0.001, 0.001)]
)
def test_the_next_question_comes_no_later_than_the_limit(running, next_in):
    vigil, at = asked()
    assert vigil.answered(at, 2, running, owes=False) is Act.NOTHING
    assert vigil.next_at == pytest.approx(at + next_in)


@pytest.mark.parametrize("running", [LIMIT, LIMIT + 1, 1e9])
def test_a_listener_that_runs_for_the_limit_hangs(running):
    vigil, at = asked()
    assert vigil.answered(at, 2, running, owes=False) is Act.HUNG
    assert vigil.look(1e9) is Act.NOTHING


def test_a_child_that_does_not_answer_for_the_limit_is_silent_and_that_is_said_once():
    vigil, at = asked()
    assert vigil.next_at == at + LIMIT
    assert vigil.look(at + LIMIT - 0.001) is Act.NOTHING
    assert vigil.look(at + LIMIT) is Act.SILENT
    assert vigil.look(1e9) is Act.NOTHING


@pytest.mark.parametrize("number", [0, 1, 3, 1 << 60])
def test_an_answer_to_another_question_says_nothing(number):
    vigil, at = asked()
    assert vigil.answered(at, number, LIMIT, owes=False) is Act.NOTHING
    assert vigil.look(at + LIMIT) is Act.SILENT


def test_an_answer_that_was_not_asked_for_says_nothing():
    vigil = asleep()
    assert vigil.answered(5.0, 1, LIMIT, owes=True) is Act.NOTHING
    assert vigil.next_at is None


def test_time_in_which_this_process_did_not_run_counts_for_no_child():
    vigil, at = asked()
    late = at + LIMIT + STEP + 0.001
    assert vigil.look(late) is Act.NOTHING  # the answer may have come meanwhile, and is read next
    assert vigil.next_at == late + LIMIT
    assert vigil.answered(late, 2, None, owes=False) is Act.SLEEP


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from(["begin", "idle", "owes", "short", "none"])), max_size=40
    )
)
def test_a_child_that_answers_in_time_never_hangs_and_one_that_does_not_is_always_found(steps):
    vigil, now = asleep(), 0.0
    for seconds, what in steps:
        end = now + seconds
        while vigil.next_at is not None and vigil.next_at <= end:
            now = vigil.next_at
            act = vigil.look(now)
            assert act in (Act.ASK, Act.NOTHING)
            if act is Act.ASK and what != "none":
                running = {"short": LIMIT - 0.1}.get(what)
                assert vigil.answered(now, vigil.number, running, owes=what == "owes") in (
                    Act.NOTHING,
                    Act.SLEEP,
                )
            elif act is Act.ASK:
                assert vigil.look(now + LIMIT) is Act.SILENT
                return
        now = end
        if what == "begin":
            vigil.begins(now)
            assert vigil.next_at is not None
