"""Local events that are emitted from inside the state lock."""

from __future__ import annotations

import queue
import threading

from places import CEILING, inside

from ipevents._platform.threads import start_thread


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
