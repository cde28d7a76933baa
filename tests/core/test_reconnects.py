from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.reconnects import first_wait, next_wait

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
