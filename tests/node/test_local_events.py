"""Events of a process for its own listeners."""

from __future__ import annotations

import queue
import sys
import threading

from places import CEILING, inside

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
