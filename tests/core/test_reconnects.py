from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.reconnects import Failures, first_wait, next_wait
from ipevents._exceptions import AddressInUse, LinkError

CHANCES = st.floats(0, 1, exclude_max=True)
DELAYS = st.floats(0.05, 2**31 / 1000)


@given(DELAYS, CHANCES)
def test_the_first_try_comes_within_half_of_the_delay(delay, chance):
    assert 0 <= first_wait(delay, chance) <= delay / 2


@given(DELAYS, CHANCES)
def test_each_other_wait_is_the_delay_less_or_more_three_tenths(delay, chance):
    assert 0.7 * delay <= next_wait(delay, chance) * (1 + 1e-12)
    assert next_wait(delay, chance) <= 1.3 * delay * (1 + 1e-12)


@pytest.mark.parametrize(
    ("wait", "chance", "seconds"),
    [
        (first_wait, 0.0, 0.0),
        (first_wait, 0.5, 0.75),
        (first_wait, 1.0, 1.5),
        (next_wait, 0.0, 2.1),
        (next_wait, 0.5, 3.0),
        (next_wait, 1.0, 3.9),
    ],
)
def test_waits_are_spread_evenly_over_their_range(wait, chance, seconds):
    assert wait(3.0, chance) == pytest.approx(seconds)


# Which failed tries are news


def hung_up(text="a: hung up", cause=ConnectionResetError):
    error = AddressInUse(text)
    error.__cause__ = cause()
    return error


def refused(text):
    """As dial() raises it: with the error of the handshake as its cause."""
    error = LinkError(text)
    error.__cause__ = LinkError("refused")
    return error


NOBODY = ConnectionRefusedError()


@pytest.mark.parametrize(
    ("errors", "news"),
    [
        ([NOBODY, FileNotFoundError(), NOBODY], [False] * 3),
        ([LinkError("a"), LinkError("a"), LinkError("b"), AddressInUse("b")], [True, False, True, True]),
        ([LinkError("a"), NOBODY, LinkError("a")], [True, False, False]),
        ([refused("a"), NOBODY, refused("a"), refused("b")], [True, False, False, True]),
        ([hung_up()], [False]),
        ([hung_up(), hung_up(), hung_up()], [False, True, False]),
        ([hung_up(), hung_up(cause=BrokenPipeError)], [False, True]),
        ([hung_up(), NOBODY, hung_up(), NOBODY], [False] * 4),
        ([hung_up("a"), hung_up("b"), hung_up("b")], [False, False, True]),
        ([hung_up(), LinkError("a"), hung_up()], [False, True, False]),
    ],
)
def test_news_is_each_cause_once_and_a_hang_up_when_the_next_try_ends_with_it_as_well(errors, news):
    failures = Failures()
    assert [failures.are_news(error) for error in errors] == news


def test_of_causes_without_end_the_first_sixteen_are_news():
    failures = Failures()
    assert [failures.are_news(LinkError(str(n))) for n in range(20)] == [True] * 16 + [False] * 4
