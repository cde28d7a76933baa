"""How often what others provoke is told, whatever it is."""

from __future__ import annotations

import threading

import pytest
from places import CEILING, inside

from ipevents._node import limited as module
from ipevents._node.limited import Limited


@pytest.fixture
def place(places):
    return places("top")


@pytest.fixture
def stopped_clock(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    return clock


def settle(place):
    done = threading.Event()
    place.node.events.notify(done.set)
    assert done.wait(CEILING)


def test_the_first_of_each_kind_is_told_at_once_and_the_next_one_says_how_many_were_not(place, stopped_clock):
    limited, told = Limited(place.node), []
    for kind in "aaba":
        limited.note(kind, lambda more, kind=kind: told.append(kind + more))
        settle(place)
    stopped_clock[0] += 1.0
    limited.note("a", lambda more: told.append("a" + more))
    settle(place)
    assert told == ["a", "b", "a (2 more of this kind were not told)"]


def test_what_waits_is_bounded_also_where_each_is_of_another_kind(place):
    limited, told = Limited(place.node, 10), []
    begun, go = threading.Event(), threading.Event()
    place.node.events.notify(lambda: (begun.set(), go.wait(CEILING)))
    assert begun.wait(CEILING)
    for kind in range(1000):
        limited.note(kind, told.append)
    assert place.node.notices._queue.qsize() == 10
    go.set()
    settle(place)
    assert told == [" (0 more of this kind and 990 of others were not told)", *[""] * 9]


def test_it_may_be_noted_within_the_state_lock_and_without_a_notices_thread(place):
    limited, told = Limited(place.node), []
    inside(place, lambda: limited.note("with", lambda _: told.append("with")))
    settle(place)
    notices, place.node.notices = place.node.notices, None
    try:
        inside(place, lambda: limited.note("deferred", lambda _: told.append("deferred")))
        limited.note("at once", lambda _: told.append("at once"))
    finally:
        place.node.notices = notices
    assert told == ["with", "deferred", "at once"]


def test_what_is_told_here_and_now_has_the_same_limit(place, stopped_clock):
    limited = Limited(place.node)
    assert [limited.is_due("a") for _ in range(3)] == ["", None, None]
    stopped_clock[0] += 1.0
    assert limited.is_due("a") == " (2 more of this kind were not told)"
