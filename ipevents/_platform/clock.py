"""The clock that every wait and every limit of the package uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType

__all__ = ["monotonic", "sleep"]

# ``time.monotonic`` in a wrapper of its own. Tools that freeze a program's clock, such as freezegun, replace
# that function in its module and in every module that has imported it. Then no deadline would ever pass here,
# although threads and processes go on. If the clock is frozen already when this module is imported, the same
# clock is read by another function, which takes 30 ns more (CPython 3.11).
monotonic: Callable[[], float] = (
    partial(time.monotonic)
    if isinstance(time.monotonic, BuiltinFunctionType)
    else partial(time.clock_gettime, time.CLOCK_MONOTONIC)
)

# Bound at import: a test that replaces ``time.sleep`` means the code under test, not the library.
sleep = time.sleep
