"""What follows the end of a child, where the system refuses; for all else see system/test_restart.py."""

from __future__ import annotations

import errno
import signal

import pytest

from ipevents import Emitter, StartFailed, WorkerRefused
from ipevents._core.messages import FAILED, STOP
from ipevents._links.link import Link
from ipevents._platform.threads import Deadline
from ipevents._processes import children as module
from ipevents._processes import supervisor
from ipevents._processes.fork_server import fork_server

CEILING_SECONDS = 20.0


@pytest.fixture
def emitter():
    with Emitter().options(useSocket=False, delayRestart=0, maxRestarts=2) as emitter:
        yield emitter


@pytest.fixture
def forking():
    with Emitter().options(useSocket=False, startMethod="forkserver") as emitter:
        yield emitter


@pytest.mark.parametrize("failure", [OSError, MemoryError, SystemExit])
def test_whatever_a_restart_raises_leaves_no_child_half_started(emitter, monkeypatch, failure):
    """SystemExit may come from an object that is passed on. Nothing would ever be due for a child
    that is half started, and a stop would wait for it without an end."""

    def refuse(*_):
        raise failure("refused")

    with emitter.expecting("error", CEILING_SECONDS, lambda message, error: type(error) is StartFailed):
        child = emitter.worker(signal.pause, restart=True)
        monkeypatch.setattr(module, "ChildProcess", refuse)
        child.process.kill()
    assert child.join(CEILING_SECONDS)
    assert len(emitter._life.supervisor.children) == 0


def test_a_fault_after_the_start_of_a_process_leaves_it_watched(emitter, monkeypatch):
    """It is killed, and its end is one as any other."""
    monkeypatch.setattr(supervisor, "patient", lambda faults: True)
    child, second = emitter.worker(signal.pause, restart=True), []
    with monkeypatch.context() as patch:

        def fails():
            second.append(child.process)
            patch.undo()
            raise MemoryError

        patch.setattr(child._state, "attach_early", fails)
        child.process.kill()
        assert child.join(CEILING_SECONDS)
    assert [process.exitcode for process in second] == [-signal.SIGKILL]


class Looks:
    """An argument that sees, while it is pickled, whether the fork server runs."""

    def __init__(self):
        self.seen = []

    def __reduce__(self):
        self.seen.append(fork_server._server is not None)
        return int, ()


def test_the_fork_server_begins_while_the_first_child_is_prepared(forking):
    looks = Looks()
    forking.worker(print, [looks], restart=False).join(CEILING_SECONDS)
    assert looks.seen[0]


def test_no_fork_server_begins_where_children_are_spawned():
    with Emitter().options(useSocket=False, startMethod="spawn") as emitter:
        looks = Looks()
        emitter.worker(print, [looks], restart=False).join(CEILING_SECONDS)
    assert not any(looks.seen)


def test_a_first_child_that_cannot_be_prepared_leaves_no_fork_server_behind(forking):
    with pytest.raises(TypeError):
        forking.worker("no function")
    forking.stop()
    assert fork_server._server is None


@pytest.mark.parametrize("refusal", [OSError(errno.EAGAIN, "no more"), WorkerRefused("refused")])
def test_what_keeps_the_fork_server_from_beginning_is_told_by_the_start_of_the_child(
    forking, monkeypatch, refusal
):
    def refuse():
        raise refusal

    monkeypatch.setattr(fork_server, "begin", refuse)
    assert forking.worker(print, restart=False).join(CEILING_SECONDS)


def test_what_a_signal_handler_raises_at_the_beginning_of_the_fork_server_is_passed_on(forking, monkeypatch):
    def late():
        raise TimeoutError("of a handler")

    monkeypatch.setattr(fork_server, "begin", late)
    with pytest.raises(TimeoutError):
        forking.worker(print)


def test_what_a_child_reports_comes_to_its_state_until_it_has_ended_for_good(emitter):
    child, other = emitter.worker(signal.pause), emitter.worker(signal.pause)
    state = child._state
    state.link.on_control((FAILED, "before", False))
    child.kill()
    assert child.join(CEILING_SECONDS)
    state.link.on_control((FAILED, "after", False))
    assert (state.failure, other._state.failure) == ("before", "")


def test_a_client_reports_nothing_of_its_process(emitter):
    """Nor does a server: only a link to a process that was started here, or that has started this one."""
    node = emitter._life.node
    link = Link("client", node.lock, node.incoming.receive, lambda link, error: None)
    for record in [(STOP, 1), (FAILED, "x", False), (99, "news")]:
        node.incoming.receive(link, [record], 1)
    with node.lock:
        link.end()
    assert link.join(Deadline(CEILING_SECONDS))
    assert not emitter.stopping
