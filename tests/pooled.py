"""Jobs of the tests of pools. Workers import it, so all of it travels by name."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from typing import Any

from scripts import wait_until

from ipevents import ipem

line: Connection | None = None  # to the test


def take(there: Connection) -> None:
    """An initializer: keep the line to the test."""
    global line
    line = there


def note(what: object) -> object:
    """Tell the test, and return the same."""
    assert line is not None
    line.send(what)
    return what


def hold(what: object = None) -> object:
    """Tell the test, and return what it tells."""
    assert line is not None
    line.send(what)
    return line.recv()


def until_cancelled() -> str:
    """Tell the test, and return when nobody wants that any more. Earlier cancels have arrived then, too."""
    assert line is not None
    line.send("runs")
    wait_until(ipem.cancelled)
    return "seen"


def hold_first(number: int) -> int:
    """Hold the job 0 until the test tells anything, and no other one."""
    if number == 0:
        hold(number)
    return number


def square(number: int) -> int:
    return number * number


def add(*numbers: int, extra: int = 0) -> int:
    return sum(numbers) + extra


def odd(number: int) -> int:
    """Raise an error for each even number."""
    if number % 2 == 0:
        raise LookupError(number)
    return number


def unsendable(number: int) -> object:
    """Return what cannot be pickled for 3, and for all others the number."""
    return threading.Lock() if number == 3 else number


def same(what: Any = None) -> Any:
    return what


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def count(self, number: int) -> int:
        return self.start + number
