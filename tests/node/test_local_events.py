"""Events of a process for its own listeners."""

from __future__ import annotations

import queue
import sys
import threading

import pytest
from places import CEILING, inside

from ipevents._exceptions import InvalidEvent, ReservedEvent
from ipevents._platform.threads import start_thread


def test_what_the_library_has_to_say_after_the_end_is_logged_or_not_said(places, caplog):
    top = places("top").on("x", lambda message: sys.exit(3)).hear_errors().listen("offline")
    top.node.events.emit("x", (), {})
    top.node.error(ValueError("late"))
    top.node.events.notify(lambda: top.node.events.deliver("offline", ("1",)))
    told = threading.Event()
    top.node.events.notify(told.set)
    assert told.wait(CEILING)
    assert (top.errors.empty(), top.heard.empty()) == (True, True)
    assert "late" in caplog.text


# From within the library


def test_an_emit_from_inside_runs_listeners_outside(line):
    top = line[0]
    owned = []
    top.on("x", lambda message: owned.append(top.node.inside()))
    inside(top, lambda: top.node.events.emit("x", (), {}))
    assert owned == [False]


def test_an_emit_from_inside_a_library_thread_runs_in_the_notices_thread(line):
    top = line[0]
    names = queue.Queue()
    top.on("x", lambda message: names.put(threading.current_thread().name))
    start_thread("test", lambda: inside(top, lambda: top.node.events.emit("x", (), {}))).join(CEILING)
    assert names.get(timeout=CEILING) == "ipevents-notices-top"


def test_an_emit_from_inside_says_whether_there_are_listeners_by_now(places):
    top = places("top")
    with top.node.lock:
        assert top.node.events.emit("x", (), {}) is False
    top.listen("x")
    with top.node.lock:
        assert top.node.events.emit("x", (1,), {}) is True
        assert top.heard.empty()
    assert top.next() == ("x", (1,), ("top",))


def test_what_an_interrupted_emit_was_handed_is_done_when_it_returns(places):
    top = places("top")
    ran = []

    def listener(message):
        top.node.events.defer(ran.append, "deferred")  # as a signal handler does
        ran.append("listener")

    top.on("x", listener)
    top.node.events.emit("x", (), {})
    assert ran == ["listener", "deferred"]


# Names


def test_a_name_that_may_be_used_is_returned_plain(places):
    class Name(str):
        __slots__ = ()

    found = places("top").node.events.checked(Name("x"), sending=True)
    assert (type(found), found) == (str, "x")


@pytest.mark.parametrize("event", ["", 5, "x" * 257, "online"])
def test_a_name_that_may_not_is_raised_or_an_error_event(places, event):
    top = places("top")
    with pytest.raises(InvalidEvent):
        top.node.events.checked(event, sending=True)
    top.hear_errors()
    assert top.node.events.checked(event, sending=True) is None
    assert isinstance(top.next_error(), InvalidEvent)


def test_error_may_be_emitted_and_not_sent(places):
    events = places("top").node.events
    assert events.checked("error", sending=False) == "error"
    with pytest.raises(ReservedEvent):
        events.checked("error", sending=True)


# Delivery


def test_an_event_of_ones_own_comes_from_here_and_says_so(places):
    top, got = places("top"), []
    top.on("x", lambda message, *args, **kwargs: got.append((message, args, kwargs)))
    assert not top.node.events.deliver("y")
    assert top.node.events.deliver("x", (1,), {"key": 2}, exitcode=3)
    ((message, args, kwargs),) = got
    assert (message.pids, message.type, message.to, message.exitcode) == (("top",), "", None, 3)
    assert (args, kwargs) == ((1,), {"key": 2})


def test_without_a_notices_thread_a_notice_runs_where_it_comes_up(places):
    top = places("top")
    notices, top.node.notices = top.node.notices, None
    threads = []
    top.node.events.notify(lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]
    top.node.notices = notices


def test_what_comes_after_offlines_waits_for_all_that_are_queued(places):
    top, ran = places("top"), queue.Queue()
    events, go = top.node.events, threading.Event()
    events.after_offlines(lambda: ran.put("at once"))
    assert ran.get_nowait() == "at once"
    with top.node.lock:
        events.tell_offlines([lambda: go.wait(CEILING), lambda: ran.put("first")])
        events.tell_offlines([lambda: ran.put("second")])
        events.tell_offlines([])
    events.after_offlines(lambda: ran.put("after"))
    assert ran.empty(), "an offline is still to come"
    go.set()
    assert [ran.get(timeout=CEILING) for _ in range(3)] == ["first", "second", "after"]
    told = threading.Event()
    events.notify(told.set)
    assert told.wait(CEILING)
    events.after_offlines(lambda: ran.put(threading.current_thread()))
    assert ran.get_nowait() is threading.current_thread()


def test_an_offline_whose_listener_fails_does_not_hold_up_what_comes_after_it(places):
    top, ran = places("top"), threading.Event()
    top.on("offline", lambda message, pid: 1 / 0).hear_errors()
    with top.node.lock:
        top.node.events.tell_offlines([lambda: top.node.events.deliver("offline", ("1",))])
    top.node.events.after_offlines(ran.set)
    assert ran.wait(CEILING)
    assert isinstance(top.next_error(), ZeroDivisionError)
