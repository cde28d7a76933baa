"""The clock of the package: the real one, however the program's own clock is frozen."""

import subprocess
import sys
import time

import pytest

from ipevents._platform import clock

FROZEN_BEFORE = """
import time
time.monotonic = lambda: 1.7e9
from ipevents._platform.clock import monotonic
"""

FROZEN_AFTER = """
import sys, time
from ipevents._platform.clock import monotonic
real, frozen = time.monotonic, lambda: 1.7e9
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if value is real:
            setattr(module, name, frozen)
"""


def test_it_is_the_clock_of_time_monotonic():
    before = time.monotonic()
    now = clock.monotonic()
    assert before <= now <= time.monotonic()


@pytest.mark.parametrize("program", [FROZEN_BEFORE, FROZEN_AFTER], ids=["before", "after"])
def test_a_clock_frozen_before_or_after_the_import_goes_on(program):
    """B18: the clock of the wall jumps or stands still."""
    ask = "print(monotonic(), time.clock_gettime(time.CLOCK_MONOTONIC), time.monotonic())"
    done = subprocess.run([sys.executable, "-c", program + ask], capture_output=True, text=True, check=True)
    ours, real, frozen = map(float, done.stdout.split())
    assert frozen == 1.7e9
    assert ours <= real < ours + 60


def test_sleep_is_bound_at_import(monkeypatch):
    monkeypatch.setattr(time, "sleep", None)
    before = clock.monotonic()
    clock.sleep(0.001)
    assert clock.monotonic() - before >= 0.001
