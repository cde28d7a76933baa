"""What follows the end of a child, where the system refuses; for all else see system/test_restart.py."""

from __future__ import annotations

import signal

import pytest

from ipevents import Emitter, ProtocolError, StartFailed
from ipevents._core.messages import FAILED, STOP
from ipevents._links.link import Link
from ipevents._platform.threads import Deadline
from ipevents._processes import children as module
from ipevents._processes import supervisor

CEILING_SECONDS = 20.0


@pytest.fixture
def emitter():
    with Emitter().options(useSocket=False, delayRestart=0, maxRestarts=2) as emitter:
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


def test_what_a_child_reports_comes_to_its_state_until_it_has_ended_for_good(emitter):
    child, other = emitter.worker(signal.pause), emitter.worker(signal.pause)
    state = child._state
    state.link.on_control((FAILED, "before", False))
    child.kill()
    assert child.join(CEILING_SECONDS)
    state.link.on_control((FAILED, "after", False))
    assert (state.failure, other._state.failure) == ("before", "")


@pytest.mark.parametrize("record", [(STOP, 1), (FAILED, "x", False), (99, "news")])
def test_a_client_reports_nothing_of_its_process(emitter, record):
    """Nor does a server: only a link to a process that was started here, or that has started this one."""
    node = emitter._life.node
    link = Link("client", node.lock, node.incoming.receive, lambda link, error: None)
    link.role = "client"
    try:
        with pytest.raises(ProtocolError):
            node.incoming.receive(link, [record], 1)
    finally:
        with node.lock:
            link.end()
    assert link.join(Deadline(CEILING_SECONDS))
    assert not emitter.stopping
