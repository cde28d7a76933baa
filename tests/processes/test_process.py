from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import select
import signal
import sys
import time

import pytest

from ipevents._processes import process
from ipevents._processes.fork_server import fork_server
from ipevents._processes.process import ChildProcess, Launch

LAUNCH = Launch("/nonexistent/children", b"start", b"a token", os.getpid(), 1, True, "spawn")
CEILING_SECONDS = 30.0


def sleep_for_ever(launch: object) -> None:
    signal.pause()


def exit_with_three(launch: object) -> None:
    os._exit(3)


@pytest.fixture
def started():
    """Start children that run a function of ours instead of the library's; all are ended afterwards."""
    children = []

    def start(target, launch=LAUNCH):
        child = ChildProcess(target, launch, "test")
        children.append(child)
        return child

    yield start
    for child in children:
        if child.exitcode is None and child.process._popen is not None:
            child.send_signal(signal.SIGKILL)
            child.process.join(CEILING_SECONDS)
        child.close()
    fork_server.release(None)


def wait_end(child: ChildProcess) -> None:
    assert select.select([child.fileno()], [], [], CEILING_SECONDS)[0]


def test_a_launch_shows_no_token_and_is_small():
    assert "token" not in repr(LAUNCH)
    assert len(pickle.dumps(LAUNCH)) < 32 * 1024


def test_an_exit_code_is_told(started):
    child = started(exit_with_three)
    wait_end(child)
    assert child.reap() == 3
    assert child.exitcode == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_ended_it_is_told(started, number):
    child = started(sleep_for_ever)
    child.send_signal(number)
    wait_end(child)
    assert child.reap() == -number


def test_its_end_is_told_though_somebody_else_took_the_status(started):
    child = started(exit_with_three)
    wait_end(child)
    os.waitpid(child.pid, 0)
    assert child.reap() is None


def test_a_signal_to_what_has_ended_is_no_error(started):
    child = started(exit_with_three)
    wait_end(child)
    child.send_signal(signal.SIGTERM)
    child.reap()
    child.send_signal(signal.SIGTERM)


def test_an_abandoned_child_is_forgotten_and_left_alone(started):
    child = started(sleep_for_ever)
    child.abandon()
    assert child.process not in multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    child.exitcode = -9


def test_a_start_leaves_the_signal_mask_as_it_was(started):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    started(exit_with_three)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


def test_only_our_own_starts_skip_the_main_module(started, monkeypatch):
    from multiprocessing import spawn

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/a/script.py", raising=False)
    started(exit_with_three)
    foreign = spawn.get_preparation_data("foreign")
    assert getattr(spawn.get_preparation_data, "_is_ipevents", False)
    assert foreign["init_main_from_path"] == "/a/script.py"


def test_a_start_that_gets_no_pidfd_leaves_no_process(started, monkeypatch):
    started_before = set(multiprocessing.active_children())

    def full(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    with pytest.raises(OSError, match="Too many open files"):
        started(sleep_for_ever)
    assert set(multiprocessing.active_children()) == started_before


def test_a_start_that_the_system_refuses_leaves_nothing(started, monkeypatch, all_is_given_back):
    """As at the limit of processes, which root does not have."""
    from multiprocessing import resource_tracker, util

    resource_tracker.ensure_running()
    os.close(os.open("/dev/null", os.O_RDONLY))

    def refuse(*args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(util, "spawnv_passfds", refuse)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with pytest.raises(BlockingIOError):
        started(exit_with_three)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_an_exit_code_is_told_though_the_clock_stands_still(started, monkeypatch, start_method):
    """multiprocessing.connection.wait() with a timeout would not return."""
    child = started(exit_with_three, LAUNCH._replace(start_method=start_method))
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert select.select([child.fileno()], [], [], CEILING_SECONDS)[0]
    assert child.reap() == 3


def test_without_a_pidfd_its_end_and_exit_code_are_told_by_a_thread(started, monkeypatch):
    monkeypatch.setattr(process, "open_pidfd", lambda pid: None)
    child = started(sleep_for_ever)
    assert select.select([child.fileno()], [], [], 0.0)[0] == []
    child.send_signal(signal.SIGTERM)
    wait_end(child)
    child.send_signal(signal.SIGTERM)  # nobody has this pid any more
    assert child.reap() == -signal.SIGTERM


def test_a_process_object_tells_its_exit_code_also_when_it_was_closed(started):
    child = started(exit_with_three)
    wait_end(child)
    child.reap()
    child.close()
    assert (child.process.exitcode, child.process.is_alive()) == (3, False)
    child.process.join()


def test_what_somebody_else_reaped_is_not_alive_for_multiprocessing(started):
    child = started(exit_with_three)
    wait_end(child)
    os.waitpid(child.pid, 0)
    assert child.reap() is None
    child.close()
    assert not child.process.is_alive()
    assert child.process not in multiprocessing.active_children()
