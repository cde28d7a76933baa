"""Waits for an event: ``waitFor`` and ``expecting``."""

from __future__ import annotations

import threading
import time

import pytest

from ipevents import Closed, Emitter, InvalidListener, WouldDeadlock

CEILING = 30.0  # reached only in a deadlock


@pytest.fixture
def ipem():
    emitter = Emitter().options(useSocket=False)
    yield emitter
    emitter.stop()


@pytest.fixture
def started(ipem):
    return ipem.start()


@pytest.fixture
def heard():
    return []


def hears(heard, name=None):
    def listener(message, *args, **kwargs):
        heard.append(message.event if name is None else name)

    return listener


def later(call, *args):
    thread = threading.Thread(target=call, args=args)
    thread.start()
    return thread


def waited_for(emitter):
    """The events that waits of the library listen to: users are not shown them."""
    return [event for event in emitter._node.dispatcher.wanted() if event not in emitter.eventNames()]


def emit_when_waited_for(emitter, event, *args):
    """In another thread, as soon as somebody waits for the event."""

    def emit():
        deadline = time.monotonic() + CEILING
        while event not in waited_for(emitter):  # nobody tells that a wait has begun
            assert time.monotonic() < deadline
        emitter.emit(event, *args)

    return later(emit)


def test_wait_for_returns_the_message(started):
    thread = emit_when_waited_for(started, "x", 1)
    message = started.waitFor("x", CEILING)
    thread.join(CEILING)
    assert message.args == (1,)
    assert waited_for(started) == []


def test_a_wait_is_no_listener_that_anybody_registered(started):
    started.on("x", print)
    with started.expecting("x", CEILING) as got, started.expecting("y", CEILING):
        assert started.listeners("x") == [print]
        assert (started.listenerCount("x"), started.listenerCount("y")) == (1, 0)
        assert started.eventNames() == ["x"]
        started.off("x", print)
        assert started.emit("x", 1), "it is heard all the same"
        started.emit("y")
    assert got.message.args == (1,)


@pytest.mark.parametrize("event", ["x", None])
def test_removing_all_listeners_ends_no_wait(started, heard, event):
    with started.expecting("x", CEILING) as got:
        started.on("x", hears(heard))
        started.removeAllListeners(event)
        started.off(event)
        started.emit("x", 1)
    assert got.message.args == (1,)
    assert heard == []


def test_expecting_misses_nothing_that_the_block_provokes(started):
    with started.expecting("x", CEILING) as got:
        with pytest.raises(AttributeError, match="has come yet"):
            _ = got.message
        started.emit("x", 1)
        started.emit("x", 2)
    assert got.message.args == (1,)
    assert waited_for(started) == started.eventNames() == []


def test_where_says_which_message_will_do(started):
    with started.expecting("x", CEILING, where=lambda message, value: value > 1) as got:
        for value in range(4):
            started.emit("x", value)
    assert got.message.args == (2,)


def test_where_that_raises_fails_the_wait(started):
    with pytest.raises(ZeroDivisionError), started.expecting("x", CEILING, where=lambda message: 1 / 0):
        started.emit("x")
    assert waited_for(started) == started.eventNames() == []


def test_nothing_that_comes_is_a_timeout(started):
    with pytest.raises(TimeoutError, match="'x'"):
        started.waitFor("x", 0)
    with pytest.raises(TimeoutError), started.expecting("x", 0, where=lambda message: False):
        started.emit("x")
    assert waited_for(started) == started.eventNames() == []


@pytest.mark.parametrize("timeout", [0, 5e-324, 2**31 - 1, 2**31, 1e9, 1e308, 10**400, float("inf"), None])
def test_a_timeout_may_be_as_long_as_anybody_likes(started, timeout):
    with started.expecting("x", timeout) as got:
        started.emit("x", 1)
    assert got.message.args == (1,)
    child = started.worker(print)
    assert child.join(CEILING)
    assert child.join(timeout)
    child.stop(timeout)
    later(started.stop, timeout).join(CEILING)
    started.run(timeout)
    assert started.run(CEILING)


def test_a_block_that_raises_is_not_waited_for(started):
    with pytest.raises(ZeroDivisionError), started.expecting("x"):
        raise ZeroDivisionError
    assert waited_for(started) == started.eventNames() == []


@pytest.mark.parametrize("timeout", ["3", True, -1, float("nan")])
@pytest.mark.parametrize("method", ["waitFor", "expecting", "run", "stop"])
def test_a_timeout_that_is_none_is_refused_at_the_call(started, method, timeout):
    event = ["x"] if method in ("waitFor", "expecting") else []
    with pytest.raises((TypeError, ValueError), match="a timeout is a number of seconds"):
        getattr(started, method)(*event, timeout)
    assert not started.stopping
    assert waited_for(started) == started.eventNames() == []


@pytest.mark.parametrize("where", ["", 0, "name", lambda: True])
@pytest.mark.parametrize("method", ["waitFor", "expecting"])
def test_where_takes_a_message(started, method, where):
    with pytest.raises(InvalidListener, match="where is"):
        getattr(started, method)("x", 0, where)
    assert waited_for(started) == started.eventNames() == []


def test_a_wait_that_cannot_begin_leaves_nothing_behind(started, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(started._life, "first_use", interrupted)
    with pytest.raises(KeyboardInterrupt):
        started.waitFor("x", CEILING)
    assert waited_for(started) == started.eventNames() == []
    assert started._life.waiters == set()


def test_an_expectation_may_be_used_again(started):
    expectation = started.expecting("x", CEILING)
    for value in range(2):
        with expectation as got:
            started.emit("x", value)
        assert got.message.args == (value,)
    with pytest.raises(AttributeError, match="after the with block"), expectation:
        _ = expectation.message


def test_waiting_in_a_listener_would_deadlock(started):
    failures = []

    def listener(message):
        for wait in (lambda: started.waitFor("y"), lambda: started.expecting("y").__enter__(), started.run):
            try:
                wait()
            except WouldDeadlock as exc:
                failures.append(exc)

    started.on("x", listener)
    started.emit("x")
    assert len(failures) == 3
    assert all("register a listener" in str(exc) for exc in failures)


def test_a_listener_waits_for_no_other_emitter_of_its_process_either(started):
    other = Emitter().options(useSocket=False).start()
    failures = []

    def listener(message):
        for wait in (lambda: other.waitFor("y"), other.run):
            try:
                wait()
            except WouldDeadlock as exc:
                failures.append(exc)
        other.stop()
        failures.append(other.stopping)

    started.on("x", listener)
    started.emit("x")
    assert [type(each) for each in failures] == [WouldDeadlock, WouldDeadlock, bool]
    assert other.run(CEILING), "the listener has only asked for the stop, which needs the listener's end"


def test_a_stop_ends_a_wait(started):
    thread = None
    with pytest.raises(Closed), started.expecting("x"):
        thread = later(started.stop)
    thread.join(CEILING)
    with pytest.raises(Closed):
        started.waitFor("x")
