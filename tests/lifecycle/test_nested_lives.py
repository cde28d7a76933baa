"""A signal handler that calls start() or worker() in the middle of such a call in the main thread."""

from __future__ import annotations

import multiprocessing
import signal
import threading

import pytest
from interrupting import Interruption

from ipevents import Emitter, WorkerRefused
from ipevents._core.state import State
from ipevents._dispatch.floor import Floor
from ipevents._platform import registry

CEILING_SECONDS = 30.0
LEAST_PLACES = 60


def new_emitter() -> Emitter:
    emitter = Emitter().options(useSocket=False)
    emitter._node.dispatcher.floor = Floor()  # it stands for a process
    return emitter


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("ipevents-")}


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", ["open", "start"])
def test_what_a_handler_starts_in_the_middle_of_a_start_is_kept(call, step):
    """Otherwise the interrupted call takes it for the work of a stop, and closes what was opened."""
    place, where = 1, "somewhere"
    while where:
        emitter, before = new_emitter(), threads()
        interruption = Interruption(place, emitter.start, after_python_calls=False)
        interruption.run(emitter.start if call == "start" else emitter._life.open)
        where = interruption.where
        expected = State.OPEN if call == "open" and not where else State.STARTED
        assert emitter._node.state.state is expected, where
        assert len(threads() - before) == 2, where  # one supervisor, one notices thread
        assert registry._open.count(emitter._life) == 1, where
        emitter.stop()
        assert emitter._node.state.state is State.CLOSED, where
        assert threads() <= before, where
        assert emitter._life not in registry._open, where
        place += step
    assert place > LEAST_PLACES, "no places were found"


@pytest.mark.parametrize(
    ("place", "step"),
    [(1, 97), *(pytest.param(first, 28, marks=pytest.mark.slow) for first in (1, 8, 15, 22))],
)
def test_a_worker_in_the_middle_of_another_ones_start_is_refused_and_waits_for_no_lock(place, step):
    """multiprocessing cannot start two processes at once in a thread, and locks are held there."""
    where, refused = "somewhere", 0
    while where:
        emitter, started = new_emitter().start(), []
        start = Worker(emitter, started)
        interruption = Interruption(place, start, after_python_calls=False)
        interruption.run(start)
        where = interruption.where
        assert len(started) == (2 if where else 1) - start.refused, where
        refused += start.refused
        emitter.stop(0.0)
        assert all(child.join(CEILING_SECONDS) for child in started)
        assert multiprocessing.active_children() == []
        place += step
    assert place > LEAST_PLACES, "no places were found"
    assert refused > 1


class Worker:
    """Starts a worker; a refusal is counted."""

    def __init__(self, emitter: Emitter, started: list) -> None:
        self._emitter, self._started = emitter, started
        self.refused = 0

    def __call__(self) -> None:
        try:
            self._started.append(self._emitter.worker(signal.pause))
        except WorkerRefused:
            self.refused += 1
