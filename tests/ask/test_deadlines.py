"""Deadlines: as they are sent, and of which clock they are."""

from __future__ import annotations

import time

import pytest
from asked import asked, passed

from ipevents._ask import asking, sends
from ipevents._ask.deadlines import here, is_remote, there
from ipevents._payload.numbered import numbered

LAST = (1 << 63) - 1


def test_a_deadline_of_another_machine_is_the_time_that_was_left():
    now = time.monotonic() * 1000
    assert -1 <= here(-5000) - (now + 5000) < 1000
    assert here(5000) == 5000
    assert here(0) == 0


def test_to_another_machine_goes_the_time_that_is_left_and_never_none():
    now = int(time.monotonic() * 1000)
    assert 4000 < -there(now + 5000, True) <= 5000
    assert there(now - 5000, True) == -1  # over, and still a deadline
    assert there(now + 5000, False) == now + 5000
    assert there(0, True) == there(0, False) == 0


@pytest.mark.parametrize("deadline", [0, 1, LAST, -1, -LAST, -(1 << 63)])
@pytest.mark.parametrize("is_remote", [True, False])
def test_a_deadline_that_is_passed_on_is_one_that_can_be_written(deadline, is_remote):
    passed = there(here(deadline), is_remote)
    numbered(1, passed, b"")
    assert bool(passed) == bool(deadline)


def test_a_link_of_a_child_has_our_clock_and_one_over_tcp_may_not(places, raw):
    link = raw(places("top")).link
    assert is_remote(link) is False
    link.role = "client"
    assert is_remote(link) is False  # over AF_UNIX
    link.connection.seals = object()
    assert is_remote(link) is True
    link.role = ""
    assert is_remote(link) is False
    link.connection.seals = None


def test_a_deadline_is_a_time_here_and_what_is_left_elsewhere(places, raw, monkeypatch):
    place = places("top")
    child = raw(place)
    now = time.monotonic() * 1000
    place.ask_async(["raw"], "x", timeout=100)
    place.ask_async(["raw"], "x")
    assert 100_000 <= asked(child)[1] - now + 1 < 120_000
    assert asked(child)[1] == 0
    monkeypatch.setattr(sends, "is_remote", lambda link: True)
    place.ask_async(["raw"], "x", timeout=100)
    place.ask_async(["raw"], "x")
    assert -100_000 <= asked(child)[1] < -80_000
    assert asked(child)[1] == 0


def test_a_deadline_that_comes_from_another_machine_is_a_time_here(between):
    _, _, one, other = between
    now = int(time.monotonic() * 1000)
    passed(one, (5, -50_000), (6, 0))
    (_, deadline), (_, none) = asked(other), asked(other)
    assert 0 <= deadline - now - 50_000 < 20_000
    assert none == 0


def test_a_deadline_is_what_is_left_where_it_passes_to_another_machine(between, monkeypatch):
    monkeypatch.setattr(asking, "is_remote", lambda link: True)
    _, _, one, other = between
    now = int(time.monotonic() * 1000)
    passed(one, (5, now + 50_000), (6, -50_000), (7, 0), (8, 1))
    deadlines = [asked(other)[1] for _ in range(4)]
    assert all(-50_001 <= deadline < -30_000 for deadline in deadlines[:2])
    assert deadlines[2:] == [0, -1]
