"""How long the listener that runs has been running, as far as can be told from outside."""

from __future__ import annotations

import threading

import pytest

from ipevents import Emitter
from ipevents._dispatch.floor import Floor
from ipevents._dispatch.listener_watch import MAX_STACKS, ListenerWatch

LIMIT = 100.0
CEILING = 60.0  # of every wait; reached only in a deadlock


class Steps:
    """A listener that stops at each call until it is let go, and the thread that emits."""

    def __init__(self, emitter):
        self.emitter = emitter
        self.inside, self.leave = threading.Semaphore(0), threading.Semaphore(0)
        emitter.on("evt", self.listen)

    def listen(self, message):
        self.inside.release()
        assert self.leave.acquire(timeout=CEILING)

    def emit(self, times=1):
        def run():
            for _ in range(times):
                self.emitter.emit("evt")

        thread = threading.Thread(target=run)
        thread.start()
        assert self.inside.acquire(timeout=CEILING)
        return thread

    def next(self):
        self.leave.release()
        assert self.inside.acquire(timeout=CEILING)

    def end(self, thread):
        self.leave.release()
        thread.join(CEILING)


@pytest.fixture
def steps():
    emitter = Emitter()
    emitter._node.dispatcher.floor = Floor()
    return Steps(emitter)


@pytest.fixture
def watch(steps):
    return ListenerWatch(steps.emitter._node.dispatcher.floor)


def test_where_no_listener_runs_there_is_nothing_to_say(watch):
    assert watch.look(1.0, LIMIT) is None


def test_the_time_of_a_listener_counts_from_the_first_look(steps, watch):
    thread = steps.emit()
    assert watch.look(10.0, LIMIT) == 0.0
    assert watch.look(13.5, LIMIT) == 3.5
    assert "listen (" in watch.listener()  # with the class before it since Python 3.11
    assert "test_listener_watch.py:" in watch.listener()
    steps.end(thread)
    assert watch.look(20.0, LIMIT) is None


def test_the_next_event_begins_anew(steps, watch):
    thread = steps.emit(2)
    assert watch.look(10.0, LIMIT) == 0.0
    steps.next()
    assert watch.look(15.0, LIMIT) == 0.0
    assert watch.look(16.0, LIMIT) == 1.0
    steps.end(thread)


def test_a_listener_that_emits_is_the_one_that_runs(steps, watch):
    steps.emitter.on("outer", lambda message: [steps.emitter.emit("evt") for _ in range(2)])
    thread = threading.Thread(target=steps.emitter.emit, args=("outer",))
    thread.start()
    assert steps.inside.acquire(timeout=CEILING)
    assert watch.look(10.0, LIMIT) == 0.0
    steps.next()
    assert watch.look(12.0, LIMIT) == 2.0
    assert "<lambda>" in watch.listener()
    steps.end(thread)


def test_the_stack_of_the_listener_comes_first_and_the_own_is_left_out(steps, watch):
    thread = steps.emit()
    watch.look(1.0, LIMIT)
    stacks = watch.stacks()
    first, *rest = stacks.split("Thread ")[1:]
    assert first.startswith(f"{thread.name}, which runs the listener")
    assert "in listen" in first
    assert "watch.stacks()" not in stacks
    assert not any("which runs" in other for other in rest)
    steps.end(thread)


def test_stacks_have_a_limit(steps, watch, monkeypatch):
    monkeypatch.setattr("ipevents._dispatch.listener_watch._stack", lambda frame: "x" * MAX_STACKS)
    thread = steps.emit()
    assert len(watch.stacks()) == MAX_STACKS
    steps.end(thread)


def test_the_next_listener_rings_once(steps):
    floor = steps.emitter._node.dispatcher.floor
    rings = []
    floor.on_begin = lambda: rings.append(threading.current_thread())
    thread = steps.emit(2)
    assert rings == [thread]
    steps.next()
    assert rings == [thread]
    steps.end(thread)
    assert floor.on_begin is None


def test_how_many_messages_of_a_frame_are_left_is_progress(watch):
    floor = watch._floor
    floor.owner = threading.get_ident()
    floor.left = left = iter([1, 2, 3])
    assert watch.look(1.0, LIMIT) == 0.0
    assert watch.look(2.0, LIMIT) == 1.0
    next(left)
    assert watch.look(3.0, LIMIT) == 0.0
    floor.owner = 0


def test_a_pause_of_the_whole_process_does_not_count(steps, watch):
    thread = steps.emit()
    watch.look(10.0, 8.0)
    assert watch.look(12.0, 8.0) == 2.0
    assert watch.look(1000.0, 8.0) == 6.0
    steps.end(thread)


def test_listeners_of_one_event_that_share_their_code_are_told_apart(steps, watch):
    for _ in range(2):
        steps.emitter.on("evt", lambda message: steps.listen(message))
    thread = steps.emit()
    steps.next()
    assert watch.look(10.0, LIMIT) == 0.0
    assert watch.look(13.0, LIMIT) == 3.0
    steps.next()
    assert watch.look(14.0, LIMIT) == 0.0
    assert watch.look(15.0, LIMIT) == 1.0
    steps.end(thread)
