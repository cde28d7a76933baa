"""What a failure is called in the log and in the error event: which listener, of what, where."""

from __future__ import annotations

import multiprocessing
import queue
import sys
from pathlib import Path

import pytest

from ipevents import Emitter
from ipevents._core.repeats import Repeats
from ipevents._node import errors as module
from ipevents._platform.host import process_name

CEILING = 20.0  # reached only in a deadlock
FILE = __file__.rpartition("/")[2]


@pytest.fixture
def ipem():
    with Emitter().options(useSocket=False) as emitter:
        yield emitter


def told(ipem):
    """Wait until every error so far was told or logged."""
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    ipem._node.events.notify(lambda: done.put(None))
    done.get(timeout=CEILING)


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def here(ipem):
    return f"{process_name()} ({ipem.pid})"


def failing(message, *args):
    raise ZeroDivisionError("division by zero")


def other(message, *args):
    raise ZeroDivisionError("by nothing")


def place(function):
    return f"{__name__}.{function.__qualname__} ({FILE}:{function.__code__.co_firstlineno})"


def test_the_log_says_which_listener_of_which_event_failed_where_and_shows_one_traceback(ipem, caplog):
    ipem.on("job", failing).emit("job")
    told(ipem)

    assert lines(caplog) == [
        f"! listener {place(failing)} of event 'job' from {ipem.pid} failed in {here(ipem)}: "
        "ZeroDivisionError: division by zero"
    ]
    assert caplog.text.count("Traceback") == 1


def test_the_error_event_has_the_message_and_the_listener_that_failed(ipem):
    heard = queue.SimpleQueue()
    ipem.on("error", lambda message, exc: heard.put(message)).on("job", failing).emit("job", 1)

    message = heard.get(timeout=CEILING)

    assert type(message.args[0]) is ZeroDivisionError
    assert (message.failed.event, message.failed.args, message.failed.from_) == ("job", (1,), ipem.pid)
    assert (message.listener, message.child) == (failing, None)


@pytest.mark.parametrize("how", ["on", "once", "connect"])
def test_a_listener_is_the_users_own_however_it_was_registered(ipem, how):
    heard = queue.SimpleQueue()
    ipem.on("error", lambda message, exc: heard.put(message))
    if how == "connect":
        ipem.signal("job").connect(failing)
    else:
        getattr(ipem, how)("job", failing)
    ipem.emit("job")

    assert heard.get(timeout=CEILING).listener is failing


def test_a_failing_listener_of_error_is_logged_in_the_same_way(ipem, caplog):
    ipem.on("error", failing).on("job", other).emit("job")
    told(ipem)

    assert lines(caplog) == [
        f"! listener {place(failing)} of event 'error' from {ipem.pid} failed in {here(ipem)}: "
        "ZeroDivisionError: division by zero"
    ]


def test_a_listener_that_fails_all_the_time_does_not_hide_the_failure_of_another_one(ipem, caplog):
    ipem.on("job", failing).on("rare", other)
    for event in ("job", "job", "job", "rare"):
        ipem.emit(event)
    told(ipem)

    assert [line.rpartition(": ")[2] for line in lines(caplog)] == ["division by zero", "by nothing"]


def test_how_many_failures_were_not_logged_is_said_with_the_next(ipem, caplog, monkeypatch):
    ipem.on("job", failing)
    for repeat in (1.0, 1.0, 1.0, 0.0):
        monkeypatch.setattr(module, "REPEAT_SECONDS", repeat)
        ipem.emit("job")
        told(ipem)

    assert [line.rpartition(": ")[2] for line in lines(caplog)] == [
        "division by zero",
        "division by zero (2 more of this kind were not logged)",
    ]


def test_failures_of_ever_new_kinds_are_not_all_remembered(ipem, monkeypatch, caplog):
    monkeypatch.setattr(ipem._node.errors, "_logged", Repeats(3))
    for number in range(10):
        ipem._node.error(type(f"Error{number}", (Exception,), {})())
    told(ipem)

    assert len(lines(caplog)) == 10
    assert len(ipem._node.errors._logged) <= 3


def test_what_is_no_listeners_fault_is_logged_with_the_process(ipem, caplog):
    ipem._node.error(LookupError("mine"))
    told(ipem)

    assert lines(caplog) == [f"! LookupError in {here(ipem)}: mine"]


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/somewhere/server.py", "x"], "server.py"),
        (["server.py"], "server.py"),
        (["/somewhere/package/__main__.py"], "package"),
        (["-c"], "MainProcess"),
        ([""], "MainProcess"),
        ([], "MainProcess"),
        ([Path("server.py")], "MainProcess"),
    ],
)
def test_a_top_process_is_called_as_its_script(monkeypatch, argv, name):
    monkeypatch.setattr(sys, "argv", argv)
    assert process_name() == name


def test_a_process_with_a_name_is_called_so(monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "name", "resize")
    assert process_name() == "resize"
