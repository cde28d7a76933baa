"""What of lifetime.py can be seen without ending a process; the rest is in system/test_exits.py."""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripts import running

from ipevents import Emitter
from ipevents._platform import lifetime
from ipevents._platform.threads import Latch


def frame_of(thread: threading.Thread, name: str):
    """The innermost frame of a thread, once a function of this name is on its stack."""
    from scripts import wait_until

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
    assert lifetime._may_raise(frame_of(thread, "wait"))
    latch.set()
    thread.join()


def test_an_exception_may_be_raised_in_code_of_the_user_and_what_that_waits_in():
    items: queue.Queue[int] = queue.Queue()

    def work() -> None:
        items.get()

    thread = threading.Thread(target=work)
    thread.start()
    assert lifetime._may_raise(frame_of(thread, "get"))
    items.put(1)
    thread.join()
    assert lifetime._may_raise(sys._getframe())


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
    assert [lifetime._may_raise(frame) for frame in frames] == [False]


def test_a_listener_is_code_of_the_user():
    emitter = Emitter()
    seen = []
    emitter.on("x", lambda message: seen.append(lifetime._may_raise(sys._getframe())))
    emitter.emit("x")
    assert seen == [True]


def test_the_main_thread_in_a_listener_is_within_the_library_and_else_it_is_not():
    emitter = Emitter()
    seen = []

    def look(message: object = None) -> None:
        # as Life.stop calls may_wait, which calls it
        (lambda: seen.append(lifetime.in_handler()))()

    emitter.on("x", look)
    emitter.emit("x")
    look()
    assert seen == [True, False]


def test_another_thread_is_in_no_handler():
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(lifetime.in_handler).result()


BODIES = {
    "nothing behind it": ("ipem.start()\nipem.stop()", True),
    "a function": ("def main():\n    ipem.start()\n    ipem.stop()\nmain()", True),
    "a loop": ("for _ in range(2):\n    ipem.start()\n    ipem.stop()", True),
    "a return of None at the end of an if": (
        "if True:\n    ipem.start()\n    ipem.stop()\nelse:\n    pass",
        True,
    ),
    "a handled exception": (
        "ipem.start(); ipem.stop()\ntry:\n    1/0\nexcept ZeroDivisionError:\n    pass",
        True,
    ),
    "sys.exit": ("ipem.start(); ipem.stop()\nsys.exit(0)", False),
    "sys.exit in a function": ("ipem.start(); ipem.stop()\ndef f(): sys.exit(0)\nf()", False),
    "sys.exit in a with": ("ipem.start(); ipem.stop()\nwith open(os.devnull):\n    sys.exit(0)", False),
    "sys.exit in a finally": ("ipem.start(); ipem.stop()\ntry:\n    pass\nfinally:\n    sys.exit(0)", False),
    "sys.exit in an except": (
        "ipem.start(); ipem.stop()\ntry:\n    1/0\nexcept ZeroDivisionError:\n    sys.exit(0)",
        False,
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_whether_the_body_returned_is_read_from_its_frame(body):
    text, returned = BODIES[body]
    look = """
    import atexit
    from ipevents._platform import lifetime
    atexit.register(lambda: say(lifetime._body_returned()))
    """
    with running(look, text + "\n") as script:
        ended = script.ended()
    assert (ended.status, ended.out, ended.err) == (0, f"{returned}\n", "")
