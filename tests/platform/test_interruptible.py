"""Where signals may raise; what they do then is in system/test_exits.py and test_interrupted_sends.py."""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripts import wait_until

from ipevents import Emitter
from ipevents._node.local_events import LocalEvents
from ipevents._node.outgoing import Outgoing
from ipevents._platform import interruptible
from ipevents._platform.latches import Latch, MainBell, Wakeup, acquire_from_user
from ipevents._transport import dial


def frame_of(thread: threading.Thread, name: str):
    """The innermost frame of a thread, once a function of this name is on its stack."""
    found = []

    def there() -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        names = []
        walk = frame
        while walk is not None:
            names.append(walk.f_code.co_name)
            walk = walk.f_back
        found[:] = [frame]
        return name in names

    wait_until(there, f"{name} on the stack of {thread.name}")
    return found[0]


def test_an_exception_may_be_raised_in_a_wait_of_ours():
    latch = Latch()
    thread = threading.Thread(target=latch.wait)
    thread.start()
    assert interruptible.may_raise(frame_of(thread, "wait"))
    latch.set()
    thread.join()


def test_an_exception_may_be_raised_in_code_of_the_user_and_what_that_waits_in():
    items: queue.Queue[int] = queue.Queue()

    def work() -> None:
        items.get()

    thread = threading.Thread(target=work)
    thread.start()
    assert interruptible.may_raise(frame_of(thread, "get"))
    items.put(1)
    thread.join()
    assert interruptible.may_raise(sys._getframe())


def test_no_exception_is_raised_in_the_middle_of_the_library():
    emitter = Emitter()
    frames = []
    node = emitter._node
    original = node.dispatcher.add

    def add(*args, **kwargs):
        frames.append(sys._getframe(1))  # Emitter._register, which called us
        return original(*args, **kwargs)

    node.dispatcher.add = add  # type: ignore[method-assign]
    emitter.on("x", print)
    assert [interruptible.may_raise(frame) for frame in frames] == [False]


def test_a_listener_is_code_of_the_user():
    emitter = Emitter()
    seen = []
    emitter.on("x", lambda message: seen.append(interruptible.may_raise(sys._getframe())))
    emitter.emit("x")
    assert seen == [True]


def test_the_main_thread_in_a_listener_is_within_the_library_and_else_it_is_not():
    emitter = Emitter()
    seen = []

    def look(message: object = None) -> None:
        seen.append(interruptible.in_handler())

    emitter.on("x", look)
    emitter.emit("x")
    look()
    assert seen == [True, False]


def test_another_thread_is_in_no_handler():
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(interruptible.in_handler).result()


def test_a_mark_leaves_the_function_as_it_is():
    for mark in (interruptible.interruptible, interruptible.runs_deferred, interruptible.runs_program):

        def function(value):
            return value

        assert mark(function) is function


@pytest.mark.parametrize(
    ("function", "waits"),
    [
        (Latch.wait, True),
        (MainBell.wait, True),
        (acquire_from_user, True),
        (dial.connect, True),
        (dial.receive, True),
        (dial.dial, False),
        (Wakeup.ring, False),
        (Latch.set, False),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_where_signals_may_raise(function, waits):
    assert (function.__code__ in interruptible._waits) == waits


@pytest.mark.parametrize("function", [Outgoing.send, Outgoing.write_dirty, LocalEvents.emit])
def test_what_runs_deferred_calls_has_a_self_that_defers(function):
    assert function.__code__ in interruptible._deferring
    assert function.__code__.co_varnames[0] == "self"


def in_library(call):
    """A function whose frame looks like one of the library's, and that calls something."""
    space = {"__name__": "ipevents.test"}
    exec("def inner(call):\n    return call()\ndef outer(call):\n    return inner(call)\n", space)
    interruptible.runs_deferred(space["outer"])
    return space["outer"](call)


def test_the_innermost_call_that_runs_deferred_is_found_below_code_of_the_library_only():
    look_in_library = eval(
        "lambda deferring, frame: (lambda: deferring(frame()))", {"__name__": "ipevents.test"}
    )(interruptible.deferring, lambda: sys._getframe(1))
    found = in_library(look_in_library)
    assert found is not None
    assert found.f_code.co_name == "outer"
    assert interruptible.is_deferring(found)
    assert not interruptible.is_deferring(found.f_back)
    assert in_library(lambda: interruptible.deferring(sys._getframe())) is None  # code of the user
