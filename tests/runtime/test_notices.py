from __future__ import annotations

import threading
from queue import SimpleQueue

from ipevents._runtime.notices import Notices
from ipevents._runtime.threads import Deadline

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
