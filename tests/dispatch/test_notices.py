from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from ipevents._dispatch.notices import Notices
from ipevents._platform.threads import Deadline

CEILING = 30.0  # reached only in a deadlock


def test_notices_run_in_order_in_a_thread_of_their_own():
    ran = []
    notices = Notices("test")
    for number in range(100):
        notices.put(lambda number=number: ran.append((number, threading.current_thread().name)))
    assert notices.close(Deadline(CEILING))
    assert ran == [(number, "ipevents-notices-test") for number in range(100)]


def test_what_fails_is_logged_and_the_next_still_runs(caplog):
    ran = []
    notices = Notices("test")
    notices.put(lambda: 1 / 0)
    notices.put(lambda: ran.append("next"))
    assert notices.close(Deadline(CEILING))
    assert ran == ["next"]
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_a_notice_may_queue_another():
    done = threading.Event()
    notices = Notices("test")
    notices.put(lambda: notices.put(done.set))
    assert done.wait(CEILING)
    assert notices.close(Deadline(CEILING))


def test_closing_does_not_wait_for_longer_than_it_may():
    go, began = threading.Event(), threading.Event()

    def hangs():
        began.set()
        go.wait(CEILING)

    notices = Notices("test")
    notices.put(hangs)
    assert began.wait(CEILING)
    assert not notices.close(Deadline(0))
    go.set()
    assert notices.close(Deadline(CEILING))


@pytest.fixture
def hanging():
    """Notices of which one does not return before the end of the test."""
    go, began = threading.Event(), threading.Event()

    def hangs():
        began.set()
        go.wait(CEILING)

    notices = Notices("4711")
    notices.put(hangs)
    assert began.wait(CEILING)
    yield notices
    go.set()
    assert notices.close(Deadline(CEILING))


def test_a_listener_that_does_not_return_is_said_to(hanging, caplog):
    hanging.end(Deadline(0), lambda: True)
    assert [record.getMessage() for record in caplog.records] == [
        "! a listener of 4711 does not return; its thread is left behind"
    ]


def test_no_listener_is_said_to_hang_where_none_runs(hanging, caplog):
    hanging.end(Deadline(0), lambda: False)
    assert [record.getMessage() for record in caplog.records] == [
        "! 4711 has no time to tell all that it noticed"
    ]


def test_no_listener_is_said_to_hang_where_one_after_the_other_returns(caplog, monkeypatch):
    notices, over = Notices("4711"), threading.Event()

    def again():
        if not over.is_set():
            notices.put(again)

    def closes_late(deadline):
        """As if the end were queued after notices that never come to one."""
        begun = notices._begun
        while notices._begun == begun:
            assert not over.is_set()
        return False

    notices.put(again)
    with monkeypatch.context() as patch:
        patch.setattr(notices, "close", closes_late)
        notices.end(Deadline(0), lambda: True)
    over.set()
    assert notices.close(Deadline(CEILING))
    assert [record.getMessage() for record in caplog.records] == [
        "! 4711 has no time to tell all that it noticed"
    ]


def test_nothing_is_said_of_a_thread_that_is_just_ending(caplog):
    """The deadline of a stop may be over before the last step begins."""
    for _ in range(20):
        notices = Notices("4711")
        notices.put(lambda: None)
        notices.end(Deadline(0), lambda: True)
    assert caplog.records == []


def test_a_notice_may_close():
    closed = []
    notices = Notices("test")
    notices.put(lambda: closed.append(notices.close(Deadline(CEILING))))
    assert notices.close(Deadline(CEILING))
    assert closed == [True]


def test_what_is_no_exception_ends_nothing_either(caplog):
    told: SimpleQueue[int] = SimpleQueue()
    notices = Notices("test")

    def leave() -> None:
        raise SystemExit(3)

    notices.put(leave)
    notices.put(lambda: told.put(1))
    assert told.get(timeout=20.0) == 1
    assert notices.close(Deadline(20.0))
    assert "a notice failed" in caplog.text
