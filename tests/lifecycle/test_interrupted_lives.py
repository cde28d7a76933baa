"""A signal handler that raises anywhere in start(), worker() or stop(): nothing is left over."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time

import pytest
from interrupting import Interruption, Raised

from ipevents import Emitter, Unpicklable
from ipevents._core.state import State
from ipevents._dispatch.floor import Floor

CEILING_SECONDS = 30.0
STEP_SECONDS = 0.005
LEAST_PLACES = 60

# A socket or file object that a handler takes along is closed by its own finalizer, with a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _collected():
    """While the filter above holds."""
    yield
    gc.collect()


@pytest.fixture
def make(port):
    def make(**options):
        socket = {"port": port, "host": "127.0.0.1", "authkey": "a key for these tests only"}
        emitter = Emitter().options(socket={**socket, "delayReconnect": 50}, **options)
        emitter._node.dispatcher.floor = Floor()  # it stands for a process
        return emitter

    return make


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("ipevents-")}


def descriptors():
    found = {}
    for number in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(number))
        except OSError:  # that of the listing
            continue
        found[number] = (status.st_dev, status.st_ino)
    return found


def free(lock):
    """Whether another thread gets it."""
    got = []

    def take():
        got.append(lock.acquire(timeout=CEILING_SECONDS))
        lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got == [True]


def check_free(emitter, where):
    opening = emitter._life.opening
    for lock in (
        opening._starting,
        opening.building,
        emitter._node.lock,
        emitter._node.dispatcher.floor.lock,
    ):
        assert not lock._is_owned(), where
        assert free(lock), where


def in_thread(call, where):
    """Call it in another thread, which is in nobody's way."""
    raised = []

    def run():
        try:
            call()
        except BaseException as exc:  # the test looks at it
            raised.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(CEILING_SECONDS)
    assert not thread.is_alive(), f"it does not return after {where}"
    assert raised == [], where


def settled(left):
    """What ``left()`` names once it names nothing any more, or after a while."""
    deadline = time.monotonic() + CEILING_SECONDS / 6
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(STEP_SECONDS)  # the ends of others' threads and connections can only be looked for
    return found


class Before:
    """What there was, and what there is now that there was not."""

    def __init__(self):
        self._threads, self._descriptors = threads(), descriptors()

    def left(self):
        now = descriptors()
        found = [str(number) for number, what in now.items() if self._descriptors.get(number) != what]
        return found + [thread.name for thread in threads() - self._threads]

    def threads(self):
        return [thread.name for thread in threads() - self._threads]


def check_ends(emitter, before, where):
    """Started again it is open; stopped it is closed, and nothing is left."""
    in_thread(emitter.start, where)
    assert emitter._node.state.state is State.STARTED, where
    in_thread(emitter.stop, where)
    assert emitter._node.state.state is State.CLOSED, where
    assert settled(before.threads) == [], where
    if settled(before.left):
        gc.collect()
        assert before.left() == [], where


def steps(quick, thorough):
    """Each how many places are looked at. Those between are looked at by the slow tests, or other Pythons."""
    return pytest.mark.parametrize("step", [quick, pytest.param(thorough, marks=pytest.mark.slow)])


def each_place(step):
    """One interruption after the other, until there is no such place.

    Not, as 3.10 has it too, between the return of a Python function and what is done with its result: there
    a thread or a descriptor may be lost that nobody knows of yet.
    """
    place = 1 + sys.version_info.minor % step
    while True:
        interruption = Interruption(place, after_python_calls=False)
        yield interruption
        if not interruption.where:
            assert place > LEAST_PLACES, "no places were found"
            return
        place += step


def warmed_up(emitter):
    emitter.start()
    emitter.stop()


def check_start(make, step, **options):
    warmed_up(make(**options))
    for interruption in each_place(step):
        emitter = make(**options)
        before = Before()
        interruption.run(emitter.start)
        where = interruption.where
        check_free(emitter, where)
        state = emitter._node.state.state
        assert state in (State.NEW, State.STARTED), where
        if state is State.NEW:
            assert settled(before.threads) == [], where
        check_ends(emitter, before, where)


@steps(11, 1)
def test_start_without_a_socket(make, step):
    check_start(make, step, useSocket=False)


@steps(15, 2)
def test_start_of_a_server(make, step):
    check_start(make, step)


@steps(31, 3)
def test_start_of_a_client(make, step):
    server = make()
    server.start()
    check_start(make, step)
    server.stop()


@steps(15, 2)
def test_start_of_threads_and_children(make, step):
    for interruption in each_place(step):
        emitter = make(useSocket=False)
        before = Before()
        interruption.run(emitter._life.open)
        where = interruption.where
        check_free(emitter, where)
        assert emitter._node.state.state in (State.NEW, State.OPEN), where
        check_ends(emitter, before, where)


def never():
    from ipevents import ipem

    ipem.waitFor("never")


@steps(47, 9)
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_worker(make, is_open, step):
    def start():
        try:
            emitter.worker(never)
        except Unpicklable as exc:  # the handler came while the target was pickled
            if isinstance(exc.__cause__, Raised):
                raise exc.__cause__ from None
            raise

    emitter = make(useSocket=False)
    start()  # the first one starts multiprocessing's resource tracker as well
    emitter.stop()
    for interruption in each_place(step):
        emitter = make(useSocket=False)
        before = Before()
        if is_open:
            emitter.start()
        interruption.run(start)
        where = interruption.where
        check_free(emitter, where)
        check_ends(emitter, before, where)
        assert multiprocessing.active_children() == [], where


@steps(11, 1)
@pytest.mark.parametrize("is_server", [False, True], ids=["alone", "a server"])
def test_stop(make, is_server, step):
    for interruption in each_place(step):
        emitter = make(useSocket=is_server)
        before = Before()
        emitter.start()
        interruption.run(emitter.stop)
        where = interruption.where
        check_free(emitter, where)
        in_thread(emitter.stop, where)
        assert emitter._node.state.state is State.CLOSED, where
        check_ends(emitter, before, where)
