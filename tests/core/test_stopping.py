from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.stopping import (
    LOOK_SECONDS,
    ORPHAN_GRACE_SECONDS,
    Act,
    Ending,
    Handler,
    Raised,
    grace,
)

AT = 10.0  # when the grace ends
EVERYTHING = list(itertools.product([False, True], [False, True], Handler, Raised))


def ending() -> Ending:
    made = Ending()
    made.signal_by(AT)
    return made


def ask(made: Ending, now: float = AT, **state: object) -> Act:
    """The answer for a program that runs, alone in its process, under the library's handler."""
    found = {"runs": True, "alone": True, "handler": Handler.OURS, "raised": Raised.NEVER} | state
    act, _ = made.next(now, **found)  # type: ignore[arg-type]
    return act


@pytest.mark.parametrize(("runs", "alone", "handler", "raised"), EVERYTHING)
def test_every_state_has_the_answer_of_the_table(runs, alone, handler, raised):
    act = ask(ending(), runs=runs, alone=alone, handler=handler, raised=raised)
    if not runs or raised is Raised.ALIVE or handler is Handler.IGNORED:
        assert act is Act.NOTHING
    elif handler is Handler.DEFAULT:
        assert act is (Act.LAST if alone else Act.NOTHING)
    else:
        assert act is Act.SIGNAL


@pytest.mark.parametrize(("runs", "alone", "handler", "raised"), EVERYTHING)
def test_nothing_is_done_in_the_grace_and_it_is_looked_at_when_that_ends(runs, alone, handler, raised):
    found = ending().next(AT - 0.001, runs=runs, alone=alone, handler=handler, raised=raised)
    assert found == (Act.NOTHING, AT)


def test_nothing_is_done_before_a_stop():
    assert Ending().next(1e9, runs=True, alone=True, handler=Handler.OURS, raised=Raised.NEVER) == (
        Act.NOTHING,
        None,
    )


@pytest.mark.parametrize(("runs", "alone", "handler", "raised"), EVERYTHING)
def test_a_program_is_looked_at_again_unless_the_last_signal_is_due(runs, alone, handler, raised):
    act, look_at = ending().next(AT + 1, runs=runs, alone=alone, handler=handler, raised=raised)
    assert look_at == (None if act is Act.LAST else AT + 1 + LOOK_SECONDS)


def test_a_handler_of_the_users_is_called_once_whatever_becomes_of_the_program():
    made = ending()
    assert ask(made, handler=Handler.USERS) is Act.SIGNAL
    for raised, later in itertools.product(Raised, (0.1, 1.0, 100.0)):
        assert ask(made, AT + later, handler=Handler.USERS, raised=raised) is Act.NOTHING


def test_our_signal_is_sent_until_it_has_raised():
    made = ending()
    assert [ask(made, AT + n) for n in range(3)] == [Act.SIGNAL] * 3


def test_a_signal_is_not_repeated_before_the_next_look():
    made = ending()
    assert ask(made) is Act.SIGNAL
    now = AT + LOOK_SECONDS / 2
    found = made.next(now, runs=True, alone=True, handler=Handler.OURS, raised=Raised.NEVER)
    assert found == (Act.NOTHING, AT + LOOK_SECONDS)
    assert ask(made, AT + LOOK_SECONDS) is Act.SIGNAL


def test_what_lives_is_left_alone_and_what_was_swallowed_is_raised_again():
    made = ending()
    states = [Raised.NEVER, Raised.ALIVE, Raised.ALIVE, Raised.DEAD, Raised.ALIVE, Raised.DEAD]
    acts = [ask(made, AT + n, raised=raised) for n, raised in enumerate(states)]
    assert acts == [Act.SIGNAL, Act.NOTHING, Act.NOTHING, Act.SIGNAL, Act.NOTHING, Act.SIGNAL]


def test_a_signal_that_is_ignored_for_a_while_is_sent_after_that():
    made = ending()
    assert ask(made, handler=Handler.IGNORED) is Act.NOTHING
    assert ask(made, AT + 5, handler=Handler.USERS) is Act.SIGNAL


def test_the_end_of_the_grace_only_comes_nearer():
    made = ending()
    made.signal_by(AT + 5)
    assert ask(made, AT) is Act.SIGNAL
    made = ending()
    made.signal_by(AT - 5)
    assert ask(made, AT - 5) is Act.SIGNAL


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_a_grace_leaves_two_thirds_of_the_time_for_the_cleanup(stop_grace, left, orphaned):
    found = grace(stop_grace, left, orphaned=orphaned)
    assert 0 <= found <= stop_grace
    assert found <= left / 3
    assert not orphaned or found <= ORPHAN_GRACE_SECONDS


def test_the_usual_graces():
    assert grace(1.0, 8.0, orphaned=False) == 1.0
    assert grace(1.0, 0.3, orphaned=False) == pytest.approx(0.1)
    assert grace(5.0, 0.6, orphaned=True) == ORPHAN_GRACE_SECONDS
