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
from raw_children import exit_with_three, launch, sleep_for_ever, starting, wait_end

from ipevents._processes import preparation, process


@pytest.fixture
def started():
    with starting("spawn") as start:
        yield start


def test_a_launch_shows_no_token_and_is_small():
    one = launch("spawn")
    assert "token" not in repr(one)
    assert len(pickle.dumps(one)) < 32 * 1024


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


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_the_end_of_a_process_that_somebody_else_has_closed_is_told(start_method):
    with starting(start_method) as start:
        child = start(exit_with_three)
        wait_end(child)
        child.process.join()
        child.process.close()
        assert child.reap() is None
        child.abandon()


def test_a_handler_that_raises_as_sigint_is_unblocked_leaves_no_mark_of_our_start(started, monkeypatch):
    """Other starts of this thread would skip the main module."""

    class Raised(Exception):
        pass

    def interrupt(number, frame):
        raise Raised

    def start_and_interrupt(self):
        start(self)
        signal.raise_signal(signal.SIGINT)  # blocked here

    started(exit_with_three)
    start = multiprocessing.process.BaseProcess.start
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start_and_interrupt)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(Raised):
            started(sleep_for_ever)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not preparation.is_starting()


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
    from multiprocessing import util

    def refuse(*args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(util, "spawnv_passfds", refuse)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with pytest.raises(BlockingIOError):
        started(exit_with_three)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_an_exit_code_is_told_though_the_clock_stands_still(monkeypatch, start_method):
    """multiprocessing.connection.wait() with a timeout would not return."""
    with starting(start_method) as start:
        child = start(exit_with_three)
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        wait_end(child)
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
