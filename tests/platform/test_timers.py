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
        timers.after(seconds, lambda seconds=seconds: called.append(seconds))
    assert len(rung) == 3
    assert timers.next_at() == 101.0
    assert timers.take(100.5) == []
    for call in timers.take(102.0):
        call()
    assert called == [1.0, 2.0]
    assert timers.next_at() == 103.0
    assert len(timers.take(200.0)) == 1
    assert timers.take(200.0) == []
