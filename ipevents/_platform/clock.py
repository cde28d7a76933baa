"""The clock that every wait and every limit of the package uses."""

from __future__ import annotations

import time
from functools import partial

__all__ = ["monotonic", "sleep"]

# The same clock as ``time.monotonic``, read by another function. Tools that freeze a program's clock, such as
# freezegun, replace ``time.monotonic`` in its module and in every module that has imported it. Then no
# deadline would ever pass here, although threads and processes go on. A call costs 20 ns more.
monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)

# Bound at import: a test that replaces ``time.sleep`` means the code under test, not the library.
sleep = time.sleep
