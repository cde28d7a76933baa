"""Calls that are due at a time."""

from __future__ import annotations

from ipevents._platform import timers as module
from ipevents._platform.timers import Timers


def test_calls_come_when_they_are_due_the_earliest_first(monkeypatch):
    monkeypatch.setattr(module, "monotonic", lambda: 100.0)
    timers, rung, called = Timers(), [], []
    assert timers.next_at() is None
    timers.ring = lambda: rung.append(True)
    for seconds in (3.0, 1.0, 2.0):
        timers.after(seconds, seconds, lambda seconds=seconds: called.append(seconds))
    assert len(rung) == 3
    assert timers.next_at() == 101.0
    assert timers.take(100.5) == []
    for call in timers.take(102.0):
        call()
    assert called == [1.0, 2.0]
    assert timers.next_at() == 103.0
    assert len(timers.take(200.0)) == 1
    assert timers.take(200.0) == []


def test_at_most_one_call_waits_for_a_key_and_it_is_the_first(monkeypatch):
    """So what is cut a thousand times within that time has one."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    timers, called = Timers(), []
    for number in range(1000):
        timers.after(10.0, "key", lambda number=number: called.append(number))
        now[0] += 0.001
    assert timers.next_at() == 110.0
    (call,) = timers.take(111.0)
    call()
    assert called == [0]
    timers.after(10.0, "key", lambda: None)
    assert timers.next_at() is not None


def test_a_call_that_is_cancelled_is_forgotten():
    timers = Timers()
    timers.after(10.0, "key", lambda: None)
    timers.cancel("another")
    assert timers.next_at() is not None
    timers.cancel("key")
    timers.cancel("key")
    assert timers.next_at() is None
