"""Two or three nodes joined by real links in one process: sends and listeners from inside the state lock."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import threading
from collections import deque

import pytest
from places import CEILING, expect_old, free, in_thread, inside, settle, watch_waits

from ipevents import Emitter
from ipevents._core.messages import (
    BROADCAST,
)
from ipevents._exceptions import (
    UnknownProcess,
)
from ipevents._links.link import Link


def test_a_send_from_inside_is_queued_and_done_on_leaving(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    def call():
        top.send(BROADCAST, "x", 1)
        top.send_child("middle", "x", 2)
        top.send_to(["middle"], "x", 3)
        assert top.node.outgoing.sent == sent

    sent = top.node.outgoing.sent
    inside(top, call)
    assert [middle.next()[1] for _ in range(3)] == [(1,), (2,), (3,)]


def test_a_signal_handler_may_run_what_is_queued_before_who_was_about_to(line):
    node = line[0].node
    done = []

    class Interrupted(deque):
        """A signal comes whenever it is asked whether something is in it: its handler runs all of it."""

        def __bool__(self):
            there = len(self) > 0
            while len(self):
                self.popleft()[0]()
            return there

    node.lock.deferred[threading.get_ident()] = Interrupted([(lambda: done.append("once"), ())])
    node.lock.run_deferred()
    assert (done, node.lock.deferred) == (["once"], {})


def test_however_much_is_queued_from_inside_runs_one_behind_the_other(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    depths = set()
    top.on("local", lambda message: depths.add(len(inspect.stack(0))))

    def call():
        for number in range(1000):
            top.send(BROADCAST, "x", number)
            top.node.events.emit("local", (), {})

    inside(top, call)
    assert [middle.next()[1] for _ in range(1000)] == [(number,) for number in range(1000)]
    assert len(depths) == 1
    assert top.node.lock.deferred == {}


def test_what_is_queued_from_inside_is_done_also_if_a_handler_raises_while_a_batch_is_written(
    line, monkeypatch
):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    heard = []
    top.on("local", lambda message: heard.append(message.event))
    claim = Link.claim_now

    def interrupted(link):
        monkeypatch.setattr(Link, "claim_now", claim)
        top.node.events.emit("local", (), {})
        raise KeyboardInterrupt

    with top.node.lock:
        top.node.outgoing.mark_dirty(top.link_to(middle))
    monkeypatch.setattr(Link, "claim_now", interrupted)
    with pytest.raises(KeyboardInterrupt):
        top.node.outgoing.write_dirty()
    assert heard == ["local"]
    assert top.node.lock.deferred == {}


def test_on_and_off_from_inside_change_the_interest_on_leaving(line):
    top, middle, _ = line
    listener = lambda message: None  # noqa: E731
    inside(middle, lambda: middle.on("x", listener))
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    inside(middle, lambda: middle.node.dispatcher.remove("x", listener))
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


def test_a_mistake_made_inside_is_an_error_event(line):
    top = line[0].hear_errors()
    inside(top, lambda: top.send_child("nobody", "x"))
    assert isinstance(top.next_error(), UnknownProcess)


def test_a_destructor_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)

    class Sends:
        def __del__(self):
            top.send_child("middle", "x", 1)

    with top.node.lock:
        cycle = [Sends()]
        cycle.append(cycle)
        del cycle
        gc.collect()
    assert middle.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_send_while_the_state_lock_is_held(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    before = signal.signal(signal.SIGUSR1, lambda *_: top.send_child("middle", "x", 1))
    try:
        with top.node.lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert middle.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_send_while_this_thread_waits_for_room(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    before = signal.signal(signal.SIGUSR1, lambda *_: parent.send_child("second", "x", 2))

    def interrupt():
        assert waiting.wait(CEILING)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert second.next()[:2] == ("x", (2,))
        free(parent, link)

    result = in_thread(interrupt)
    try:
        parent.send_child("first", "x", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))


def test_a_stop_from_inside_does_not_block():
    emitter = Emitter().options(useSocket=False).start()
    with emitter._node.lock:
        emitter.stop()
        assert emitter.stopping
    assert emitter.run(CEILING)
