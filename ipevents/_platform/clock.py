"""The clock that every wait and every limit in here goes by."""

from __future__ import annotations

import time
from functools import partial

__all__ = ["monotonic", "sleep"]

# Not ``time.monotonic`` itself: tools that freeze a program's clock (freezegun) put another function in its
# place, in the module and in every module that has imported it, and then no deadline ever passes. Threads and
# processes do not stand still with a frozen clock. Same clock, same origin; 20 ns more for a call.
monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)

# As it is now: a test that puts something else into ``time.sleep`` means the code under test.
sleep = time.sleep
