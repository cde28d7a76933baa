from __future__ import annotations

import threading
import time

from ipevents._platform import guards
from ipevents._platform.latches import Latch
from ipevents._platform.logs import Log
from ipevents._platform.threads import Deadline, join_thread, run_rounds, start_thread


def test_a_deadline_without_a_limit_never_passes():
    deadline = Deadline(None)
    assert deadline.left() is None
    assert not deadline.passed()
    assert deadline.at_least(5.0).left() is None


def test_a_passed_deadline_has_nothing_left():
    deadline = Deadline(0.0)
    assert deadline.left() == 0.0
    assert deadline.passed()


def test_a_deadline_can_only_be_shortened():
    deadline = Deadline(100.0)
    deadline.shorten(1000.0)
    assert 99.0 < (deadline.left() or 0.0) <= 100.0
    deadline.shorten(10.0)
    assert 9.0 < (deadline.left() or 0.0) <= 10.0
    endless = Deadline(None)
    endless.shorten(10.0)
    assert (endless.left() or 0.0) <= 10.0


def test_at_least_gives_what_is_later():
    assert (Deadline(0.0).at_least(10.0).left() or 0.0) > 9.0
    assert (Deadline(100.0).at_least(10.0).left() or 0.0) > 99.0


def test_a_thread_is_a_named_daemon():
    seen: list[threading.Thread] = []
    thread = start_thread("something", lambda: seen.append(threading.current_thread()))
    assert join_thread(thread, Deadline(20.0))
    assert (thread.name, thread.daemon, seen) == ("ipevents-something", True, [thread])


def test_joining_nothing_oneself_or_a_hung_thread_does_not_hang():
    latch = Latch()
    thread = start_thread("waits", latch.wait)
    assert join_thread(None, Deadline(None))
    assert join_thread(threading.current_thread(), Deadline(None))
    begun = time.monotonic()
    assert not join_thread(thread, Deadline(0.01))
    assert time.monotonic() - begun < 20.0
    latch.set()
    assert join_thread(thread, Deadline(20.0))


def test_what_a_thread_raises_is_logged_and_its_owner_is_told(caplog):
    told: list[BaseException] = []

    def fail() -> None:
        raise SystemExit(3)

    assert join_thread(start_thread("fails", fail, on_fault=told.append), Deadline(20.0))
    assert [type(exc) for exc in told] == [SystemExit]
    assert "the thread fails has failed" in caplog.text


# Rounds


def test_rounds_go_on_after_faults_and_give_up_after_too_many_in_a_row(monkeypatch, caplog):
    monkeypatch.setattr(guards, "sleep", lambda seconds: None)
    done = []

    def once():
        done.append(None)
        if len(done) != 3:
            raise MemoryError

    run_rounds(once, lambda: False, Log("ipevents.test"), "this")
    assert len(done) == 3 + guards.FAULTS
    assert caplog.messages[-1] == f"! 'this' gives up after {guards.FAULTS} faults in a row"


def test_rounds_end_when_it_is_over():
    done = []
    run_rounds(lambda: done.append(None), lambda: len(done) == 2, Log("ipevents.test"), "this")
    assert len(done) == 2
