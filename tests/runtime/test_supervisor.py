"""A supervisor with a node and children that are no processes; with processes see system/test_restart.py."""

from __future__ import annotations

import queue
import signal
import threading

import pytest

from ipevents import OptionsError
from ipevents._core.restarts import RestartPolicy
from ipevents._options import Options, child_options
from ipevents._runtime import programs, supervisor
from ipevents._runtime.node import Node
from ipevents._runtime.supervisor import Slot, Supervisor
from ipevents._runtime.threads import Deadline, main_ident

CEILING_SECONDS = 20.0


def ignore(*_: object) -> None:
    pass


class Watched:
    """A supervisor, and what it called in which order."""

    def __init__(self) -> None:
        self.called: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_done = True
        self.interrupts = 0
        node = Node("1", reply=ignore, on_control=ignore, on_first_use=ignore, on_exit=ignore)
        self.supervisor = Supervisor(
            node,
            depth=0,
            incarnation=1,
            on_stop=lambda deadline: self.called.put("stop"),
            on_stopped=lambda deadline: self.called.put("stopped"),
            on_orphaned=lambda: self.called.put("orphaned"),
            on_empty=lambda: self.called.put("empty"),
            is_done=lambda: self.is_done,
            interrupt=self.interrupt,
        )

    def interrupt(self) -> bool:
        self.interrupts += 1
        if self.interrupts == 3:
            self.is_done = True
            self.supervisor.request_stop(CEILING_SECONDS)  # as the main thread does when it is done
        return not self.is_done


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


def test_the_program_of_the_main_thread_is_interrupted_until_it_is_done(watched):
    watched.is_done = False
    watched.supervisor.begin()
    watched.supervisor.request_stop(CEILING_SECONDS)
    assert [watched.called.get(timeout=CEILING_SECONDS) for _ in range(2)] == ["stop", "stopped"]
    assert watched.interrupts == 3


def test_a_shorter_deadline_is_kept_to(watched):
    watched.is_done = False
    watched.interrupts = 1_000_000
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
        assert watched.supervisor.watch_parent(parent.pid)
        assert not watched.supervisor.parent_is_gone(0.0)
        watched.supervisor.begin()
        parent.kill()
        assert watched.called.get(timeout=CEILING_SECONDS) == "orphaned"
        assert watched.supervisor.parent_is_gone(0.0)


def test_a_parent_that_is_gone_already_is_noticed(watched):
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", ""]) as parent:
        parent.wait()
    assert not watched.supervisor.watch_parent(parent.pid)
    watched.supervisor.begin()


def slot() -> Slot:
    program = programs.function(print, (), {})
    return Slot("name", program, True, RestartPolicy(True, 1.0, None), False, "spawn")


def test_each_start_has_a_token_of_its_own():
    one = slot()
    first = (one.key, one.token)
    one.begin()
    assert one.key != first[0]
    assert one.token != first[1]


def test_a_start_that_was_not_attached_is_read_when_it_can_be_no_more():
    one = slot()
    assert one.is_read(100.0)
    one.process, one.exited_at, one.admitted_at = object(), 100.0, 99.5
    assert not one.is_read(100.0)
    assert one.times()[-1] == 99.5 + supervisor.ADMITTED_SECONDS
    assert one.is_read(99.5 + supervisor.ADMITTED_SECONDS)


def test_a_start_that_was_attached_is_read_when_its_link_is():
    one = slot()
    one.attached = True
    assert not one.is_read(1e9)
    one.link_read = True
    assert one.is_read(0.0)


def test_a_program_that_is_too_much_for_the_pipe_travels_over_the_link():
    """What goes through the pipe of a start is the same for every program."""
    big = programs.function(print, (b"x" * 1_000_000,), {})
    one = Slot("name", big, True, RestartPolicy(True, 1.0, None), False, "spawn")
    assert one.program_size > 1_000_000


@pytest.mark.parametrize("policy", ["sometimes", 1.5, [], "True"])
def test_a_policy_that_there_is_not_is_refused(policy):
    with pytest.raises(OptionsError):
        child_options(policy, None, Options())
