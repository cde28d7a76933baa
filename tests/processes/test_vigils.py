"""What follows on the answers, and on the silence, of children. Real ones: system/test_hangs.py."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from ipevents._core.messages import RUNS
from ipevents._core.vigil import LOOK, Vigil
from ipevents._exceptions import Hung
from ipevents._processes import vigils as module
from ipevents._processes.vigils import Vigils

LIMIT = 8.0
NOW = 1000.0


class Watched:
    """A child of which only the vigil is real, and what is done to it."""

    def __init__(self, monkeypatch):
        self.now = NOW
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        self.rings = 0
        self.reported = []
        self.asked = 0
        self.at_write = []
        self.vigils = Vigils(
            SimpleNamespace(lock=threading.RLock()),
            self._ring,
            lambda child, error: self.reported.append(error),
        )
        connection = SimpleNamespace(call_at_write=self.at_write.append)
        self.child = SimpleNamespace(
            vigil=Vigil(LIMIT),
            alive=True,
            pid="4711",
            name="work",
            was_written_to=False,
            kill_at=None,
            process=SimpleNamespace(pid=os.getpid()),
            link=SimpleNamespace(owes=False, connection=connection),
            ask=self._ask,
        )

    def _ring(self):
        self.rings += 1

    def _ask(self):
        self.asked += 1

    def tell(self, number, running, listener="", text=""):
        items = {"number": number, "running": running, "listener": listener, "text": text}
        self.vigils.told(self.child, RUNS, items)

    def watch(self, seconds):
        self.now += seconds
        self.vigils.watch(self.child, self.now)


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


def test_a_child_in_which_nothing_runs_is_asked_again_when_something_was_written_to_it(watched):
    watched.tell(1, None)
    assert watched.child.vigil.next_at is None
    (written,) = watched.at_write
    written()
    assert watched.rings == 1
    watched.watch(0.0)
    watched.watch(LOOK * LIMIT)
    assert watched.asked == 1


def test_a_child_without_a_connection_or_that_owes_something_is_asked_soon(watched):
    watched.child.link.connection = None
    watched.tell(1, None)
    assert watched.child.vigil.next_at == NOW + LOOK * LIMIT


def test_a_listener_that_begins_is_asked_about(watched):
    watched.tell(1, None)
    watched.tell(0, 0)
    watched.watch(LOOK * LIMIT)
    assert watched.asked == 1


def test_a_child_that_says_that_it_stops_is_watched_no_more(watched):
    watched.tell(0, None)
    assert watched.child.vigil is None
    watched.watch(10 * LIMIT)
    watched.tell(1, 1000 * int(LIMIT))
    assert (watched.reported, watched.child.kill_at) == ([], None)


def test_a_listener_that_runs_too_long_is_reported_and_its_child_killed(watched):
    watched.tell(1, 8001, "work.hang (x.py:1)", "the stacks")
    (error,) = watched.reported
    assert type(error) is Hung
    assert error.args == ("4711", "work", 8.001, "work.hang (x.py:1)", "the stacks", "")
    assert (watched.child.kill_at, watched.child.vigil) == (NOW, None)


def test_a_silent_child_is_reported_with_why_it_may_be_silent(watched):
    watched.tell(1, None)
    watched.tell(0, 0)
    watched.watch(LOOK * LIMIT)
    watched.watch(LIMIT)
    (error,) = watched.reported
    assert (error.seconds, error.stacks) == (LIMIT, "")
    assert "C code" in error.why
    assert watched.child.kill_at == watched.now


def test_nothing_is_reported_of_a_child_that_has_ended_or_was_asked_to_stop_in_that_moment(watched):
    vigil = watched.child.vigil
    error = Hung("4711", "work", LIMIT)
    watched.child.alive = False
    watched.vigils._hung(watched.child, vigil, error)
    watched.child.alive, watched.child.vigil = True, None
    watched.vigils._hung(watched.child, vigil, error)
    assert (watched.reported, watched.child.kill_at) == ([], None)


def test_of_a_process_that_is_gone_the_system_says_nothing():
    assert "C code" in module._why(2**31 - 1)
