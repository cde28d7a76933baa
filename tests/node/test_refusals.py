"""How often what strangers provoke reaches user code and the log."""

from __future__ import annotations

import logging
import threading

import pytest
from places import CEILING

from ipevents._dispatch.notices import Notices
from ipevents._exceptions import LinkError
from ipevents._node import limited as module
from ipevents._platform.threads import Deadline


@pytest.fixture
def place(places):
    return places("top")


def settle(place):
    done = threading.Event()
    place.node.events.notify(done.set)
    assert done.wait(CEILING)


def all_errors(place):
    settle(place)
    return [str(place.errors.get_nowait()) for _ in range(place.errors.qsize())]


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, "ipevents")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def stopped_clock(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    return clock


def test_each_cause_is_told_once_in_a_second_and_all_are_counted(place, stopped_clock):
    place.hear_errors()
    for cause in ("wrong-key", "garbled"):
        place.node.refusals.note(cause, f"refused: {cause}")
    assert all_errors(place) == ["refused: wrong-key", "refused: garbled"]
    for _ in range(2):
        for cause in ("wrong-key", "garbled"):
            place.node.refusals.note(cause, f"refused: {cause}")
    stopped_clock[0] += 0.75
    place.node.refusals.note("garbled", "refused: garbled")
    assert all_errors(place) == []
    stopped_clock[0] += 0.25
    place.node.refusals.note("garbled", "refused: garbled")
    assert all_errors(place) == ["refused: garbled (3 more of this kind were not told)"]
    assert place.node.refusals.counts == {"wrong-key": 3, "garbled": 5}


def test_what_waits_is_one_of_each_cause(place, stopped_clock):
    begun, go = threading.Event(), threading.Event()
    place.node.events.notify(lambda: (begun.set(), go.wait(CEILING)))
    place.hear_errors()
    assert begun.wait(CEILING)
    for _ in range(1000):
        place.node.refusals.note("wrong-key", "refused")
        place.node.refusals.note_privately("garbled", "refused")
        place.node.refusals.note_quietly("hung-up", "hung up")
    assert place.node.notices._queue.qsize() == 2
    go.set()
    assert all_errors(place) == ["refused (999 more of this kind were not told)"]


def test_without_a_listener_it_is_logged_as_often_and_hides_no_other_error(place, lines, stopped_clock):
    for _ in range(3):
        place.node.refusals.note("wrong-key", "refused")
        settle(place)
    place.node.error(LinkError("another one"))
    settle(place)
    here = place.node.place()
    assert lines() == [
        ("ERROR", f"! LinkError in {here}: refused"),
        ("ERROR", f"! LinkError in {here}: another one"),
    ]


def test_at_the_socket_for_children_it_is_a_warning_and_no_event(place, lines, stopped_clock):
    place.hear_errors()
    for _ in range(3):
        place.node.refusals.note_privately("wrong-key", "refused")
        settle(place)
    assert all_errors(place) == []
    assert lines() == [("WARNING", "! refused")]


def test_what_is_nobodys_fault_is_seen_in_debugging_only(place, lines, stopped_clock):
    place.hear_errors()
    for _ in range(3):
        place.node.refusals.note_quietly("hung-up", "hung up")
    assert all_errors(place) == []
    assert lines() == [("DEBUG", "! hung up")]
    assert place.node.refusals.counts == {"hung-up": 3}


def test_what_waited_when_a_life_ended_does_not_silence_the_next_one(place):
    place.hear_errors()
    node = place.node
    first, go = node.notices, threading.Event()
    node.events.notify(lambda: go.wait(CEILING))
    node.refusals.note("wrong-key", "the first")
    first._is_over = True
    go.set()
    assert first.close(Deadline(CEILING))
    node.notices = Notices("top")
    node.refusals.note("wrong-key", "the second")
    assert all_errors(place) == ["the second (1 more of this kind were not told)"]


def test_both_acceptors_may_count_at_once(place):
    together = threading.Barrier(4)

    def refuse():
        together.wait(CEILING)
        for _ in range(2000):
            place.node.refusals.note_quietly("hung-up", "hung up")

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CEILING)
    assert place.node.refusals.counts == {"hung-up": 8000}
