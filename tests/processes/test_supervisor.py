"""A supervisor with a node and children that are no processes; with processes see system/test_restart.py."""

from __future__ import annotations

import logging
import queue
import signal
import threading

import pytest

from ipevents._ask.asking import Asking
from ipevents._node.node import Node
from ipevents._platform.clock import monotonic
from ipevents._platform.threads import Deadline, main_ident
from ipevents._processes import supervisor as module
from ipevents._processes.role import TopRole
from ipevents._processes.supervisor import Supervisor

CEILING_SECONDS = 20.0


def ignore(*_: object) -> None:
    pass


class Watched(TopRole):
    """A supervisor, and what it called in which order; it is the role as well."""

    def __init__(self) -> None:
        super().__init__(lambda timeout: True)
        self.called: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_done = True
        self.looks = 0
        self.again_after = 0.0
        self.node = node = Node("1", reply=ignore, on_first_use=ignore, on_exit=ignore)
        node.asks = Asking(node, lambda: None)
        self.supervisor = Supervisor(
            node,
            depth=0,
            incarnation=1,
            on_stop=self.stop,
            role=self,
            child_main=ignore,
        )

    def stop(self, supervisor: Supervisor, deadline: Deadline) -> None:
        self.called.put("stop")
        supervisor.end_children(deadline)
        self.called.put("stopped")

    def parent_ended(self) -> None:
        self.called.put("orphaned")

    def has_left(self) -> bool:
        return self.is_done

    def hurry(self, deadline: Deadline, *, alone: bool) -> float | None:
        self.looks += 1
        if self.looks == 3:
            self.is_done = True
        return monotonic() + self.again_after


@pytest.fixture
def watched():
    found = Watched()
    yield found
    found.supervisor.request_stop(0.0)
    assert found.supervisor.join(Deadline(CEILING_SECONDS))


def test_a_stop_calls_first_the_one_and_then_the_other(watched):
    watched.supervisor.begin()
    watched.supervisor.request_stop(CEILING_SECONDS)
    assert [watched.called.get(timeout=CEILING_SECONDS) for _ in range(2)] == ["stop", "stopped"]


def test_a_stop_before_the_thread_began_counts(watched):
    watched.supervisor.request_stop(CEILING_SECONDS)
    watched.supervisor.begin()
    assert [watched.called.get(timeout=CEILING_SECONDS) for _ in range(2)] == ["stop", "stopped"]


def test_the_program_of_the_main_thread_is_hurried_until_it_is_done(watched):
    watched.is_done = False
    watched.supervisor.begin()
    watched.supervisor.request_stop(CEILING_SECONDS)
    assert [watched.called.get(timeout=CEILING_SECONDS) for _ in range(2)] == ["stop", "stopped"]
    assert watched.looks == 3


def test_what_ends_the_process_at_once_comes_after_everything_else(watched):
    watched.is_done = False
    watched.ends_at_once = True
    watched.hurry = lambda deadline, alone: None
    watched.supervisor.begin()
    watched.supervisor.request_stop(CEILING_SECONDS)
    assert [watched.called.get(timeout=CEILING_SECONDS) for _ in range(2)] == ["stop", "stopped"]


def test_a_shorter_deadline_is_kept_to(watched):
    watched.is_done = False
    watched.again_after = 1_000_000.0
    watched.supervisor.begin()
    watched.supervisor.request_stop(1_000_000.0)
    assert watched.called.get(timeout=CEILING_SECONDS) == "stop"
    watched.supervisor.request_stop(0.0)
    assert watched.called.get(timeout=CEILING_SECONDS) == "stopped"


def test_a_signal_is_sent_again_to_the_main_thread(watched):
    watched.supervisor.begin()
    came = threading.Event()
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: came.set())
    try:
        assert threading.get_ident() == main_ident()
        watched.supervisor.resend(signal.SIGUSR1)
        assert came.wait(CEILING_SECONDS)
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_the_end_of_the_parent_is_told(watched):
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        assert watched.supervisor.sentinels.add_parent(parent.pid)
        assert not watched.supervisor.sentinels.parent_is_gone(0.0)
        watched.supervisor.begin()
        parent.kill()
        assert watched.called.get(timeout=CEILING_SECONDS) == "orphaned"
        assert watched.supervisor.sentinels.parent_is_gone(0.0)


def test_the_end_of_the_parent_is_not_lost_where_a_channel_cannot_be_read(watched, monkeypatch):
    class Unread:
        def read(self):
            raise MemoryError

    wait = watched.supervisor.sentinels.wait
    returned = [([], True, [Unread()])]
    monkeypatch.setattr(
        watched.supervisor.sentinels, "wait", lambda *args: returned.pop() if returned else wait(*args)
    )
    watched.supervisor.begin()
    assert watched.called.get(timeout=CEILING_SECONDS) == "orphaned"


def test_a_parent_that_is_gone_already_is_noticed(watched):
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", ""]) as parent:
        parent.wait()
    assert not watched.supervisor.sentinels.add_parent(parent.pid)
    watched.supervisor.begin()


@pytest.mark.parametrize(("waiting", "warns"), [(0, True), (3, True), (3, False)])
def test_what_waits_in_a_child_for_its_own_online_is_named(watched, monkeypatch, waiting, warns):
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: said.put(record.getMessage()))
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    watched.node.incoming.holding = True
    watched.node.incoming.held.count = waiting
    logger = logging.getLogger("ipevents")
    logger.addHandler(handler)
    try:
        watched.supervisor.begin(warns=warns)
        if waiting and warns:
            line = said.get(timeout=CEILING_SECONDS)
            here = watched.node.place()
            assert line.startswith(f"! 3 events wait for {here} to say online: call ipem.start()")
        watched.supervisor.request_stop(CEILING_SECONDS)
        assert watched.supervisor.join(Deadline(CEILING_SECONDS))
        assert said.empty()
    finally:
        logger.removeHandler(handler)


def test_a_fault_that_passes_ends_nothing(watched, monkeypatch, caplog):
    step, faults = watched.supervisor._step, []

    def fails_twice(until):
        if len(faults) < 2:
            faults.append(1)
            raise MemoryError
        step(until)

    monkeypatch.setattr(module, "patient", lambda count: True)
    monkeypatch.setattr(watched.supervisor, "_step", fails_twice)
    watched.supervisor.begin()
    watched.supervisor.request_stop(CEILING_SECONDS)
    assert watched.supervisor.join(Deadline(CEILING_SECONDS))
    assert [watched.called.get() for _ in range(2)] == ["stop", "stopped"]


def test_a_fault_that_lasts_is_told_and_ends_all(watched, monkeypatch):
    told = []

    def fails(until):
        raise SystemExit(3)

    monkeypatch.setattr("ipevents._platform.guards.sleep", lambda seconds: None)
    monkeypatch.setattr(watched.supervisor, "_step", fails)
    monkeypatch.setattr(watched.supervisor, "_on_fault", told.append)
    watched.supervisor.begin()
    assert watched.supervisor.join(Deadline(CEILING_SECONDS))
    assert [watched.called.get() for _ in range(2)] == ["stop", "stopped"]
    assert [type(exc) for exc in told] == [SystemExit]


def test_a_fault_that_cannot_be_reported_is_followed_by_the_stop_all_the_same(watched, monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(module, "patient", lambda count: False)
    monkeypatch.setattr(watched.supervisor, "_step", fails)
    monkeypatch.setattr(watched.supervisor, "_on_fault", fails)
    watched.supervisor.begin()
    assert watched.supervisor.join(Deadline(CEILING_SECONDS))
    assert [watched.called.get() for _ in range(2)] == ["stop", "stopped"]
