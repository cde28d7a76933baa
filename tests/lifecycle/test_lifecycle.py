"""A stop: what is left of it, whatever fails in the middle, and what it means where nothing was started."""

from __future__ import annotations

import signal
import threading

import pytest
from lives import CEILING_SECONDS, InThread, state_of, threads

from ipevents import Emitter
from ipevents._core.state import State
from ipevents._lifecycle import drain
from ipevents._processes import supervisor


def test_a_stop_before_any_start_changes_nothing(emitter):
    emitter.stop()
    assert not emitter.stopping
    assert state_of(emitter) is State.NEW


@pytest.mark.parametrize("again", [False, True])
def test_no_listener_begins_after_the_stop_although_one_has_kept_its_reader(again):
    def work():
        for number in range(200):
            ipem.sendToParents("x", number)

    from ipevents import ipem

    emitter = Emitter().options(useSocket=False, restart=False).start()
    heard = []
    runs = threading.Event()
    may_end = threading.Event()

    @emitter.on("x")
    def keeps(message, number):
        heard.append(number)
        runs.set()
        assert may_end.wait(CEILING_SECONDS)

    emitter.on("offline", lambda message, pid: heard.append("offline"))
    emitter.worker(work)
    assert runs.wait(CEILING_SECONDS)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith("ipevents-reader")]
    emitter.stop(timeout=0.1)
    assert state_of(emitter) is State.CLOSED
    if again:
        start = InThread(emitter.start)
    may_end.set()
    for reader in readers:
        reader.join(CEILING_SECONDS)
    if again:
        assert start.result() is None
        emitter.stop()
    assert heard == [0]
    assert emitter.stats()["stopped"] > 0


@pytest.mark.parametrize("step", ["run_notices", "flush", "say_goodbye", "end_notices", "join"])
def test_a_stop_whose_last_steps_fail_comes_to_its_end_and_start_works_again(emitter, monkeypatch, step):
    def fails(*args):
        raise MemoryError

    emitter.start()
    with monkeypatch.context() as patch:
        patch.setattr(drain, step, fails)
        emitter.stop()
    assert state_of(emitter) is State.CLOSED
    assert threads() == []
    emitter.start()
    assert state_of(emitter) is State.STARTED
    emitter.stop()


def test_a_stop_whose_first_step_fails_leaves_no_child_and_comes_to_its_end(emitter, monkeypatch):
    def fails():
        raise MemoryError

    emitter.options(useSocket=False).start()
    child = emitter.worker(lambda: threading.Event().wait())
    with monkeypatch.context() as patch:
        patch.setattr(emitter._life, "_close_entrances", fails)
        emitter.stop()
    assert child.join(0.0)
    assert child.exitcode == -signal.SIGKILL
    assert state_of(emitter) is State.CLOSED
    assert threads() == []
    emitter.start().stop()


def test_a_supervisor_that_fails_for_good_ends_the_emitter_and_who_waits_for_it(emitter, monkeypatch):
    class Lasting(Exception):
        pass

    def fails(*args):
        raise Lasting

    monkeypatch.setattr(supervisor, "patient", lambda faults: False)
    emitter.options(useSocket=False).start()
    child = emitter.worker(lambda: threading.Event().wait())
    monkeypatch.setattr(emitter._life.supervisor, "_step", fails)
    emitter._life.supervisor.sentinels.ring()
    with pytest.raises(SystemExit):
        emitter.run(CEILING_SECONDS)
    assert child.join(0.0)
    assert child.exitcode == -signal.SIGKILL
    assert state_of(emitter) is State.CLOSED
    assert threads() == []
    monkeypatch.undo()
    emitter.start().stop()


def test_a_stop_from_inside_does_not_block():
    emitter = Emitter().options(useSocket=False).start()
    with emitter._node.lock:
        emitter.stop()
        assert emitter.stopping
    assert emitter.run(CEILING_SECONDS)
