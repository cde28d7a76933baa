"""A process of the fork server, as its supervisor and multiprocessing see it."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading

import pytest
from raw_children import CEILING_SECONDS, exit_with_three, launch, sleep_for_ever, starting, wait_end

from ipevents._processes.fork_server import fork_server
from ipevents._processes.process import ChildProcess


@pytest.fixture
def started():
    with starting("forkserver") as start:
        yield start


def kill_server() -> None:
    os.kill(fork_server._server._pids[0], signal.SIGKILL)
    assert fork_server._server.has_ended(CEILING_SECONDS)


def test_it_is_a_process_of_multiprocessing(started):
    child = started(sleep_for_ever)
    assert isinstance(child.process, multiprocessing.process.BaseProcess)
    assert child.process in multiprocessing.active_children()
    assert (child.process.pid, child.process.name, child.process.daemon) == (child.pid, "test", False)
    assert (child.process.exitcode, child.process.is_alive()) == (None, True)
    child.process.terminate()
    child.process.join(CEILING_SECONDS)
    assert (child.process.exitcode, child.process.is_alive()) == (-signal.SIGTERM, False)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_it_can_be_ended_by_the_methods_of_multiprocessing(started, how):
    child = started(sleep_for_ever)
    getattr(child.process, how)()
    wait_end(child)
    assert child.reap() == {"kill": -signal.SIGKILL, "terminate": -signal.SIGTERM}[how]


def test_its_exit_code_is_that_of_the_program(started):
    child = started(exit_with_three)
    wait_end(child)
    assert child.reap() == 3
    child.close()
    assert (child.process.exitcode, child.process.is_alive()) == (3, False)
    child.process.join()


def test_any_number_of_threads_may_ask_for_its_exit_code(started):
    child = started(exit_with_three)
    found = []
    threads = [threading.Thread(target=lambda: found.append(child.process._popen.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 8


def test_a_join_with_a_time_limit_ends(started):
    child = started(sleep_for_ever)
    child.process.join(0.01)
    assert child.process.exitcode is None


def test_it_lives_on_without_its_server_and_then_its_exit_code_is_unknown(started):
    child = started(sleep_for_ever)
    kill_server()
    assert child.process.is_alive()
    assert select.select([child.fileno()], [], [], 0.0)[0] == []
    child.send_signal(signal.SIGKILL)
    wait_end(child)
    assert child.reap() is None
    child.close()
    assert not child.process.is_alive()


def test_discarding_ends_it_with_and_without_its_server(started):
    for killed in (False, True):
        child = ChildProcess(sleep_for_ever, launch("forkserver"), "test")
        if killed:
            kill_server()
        child.exitcode = -signal.SIGKILL
        with open(f"/proc/{child.pid}/task/{child.pid}/children"):  # it is there
            pidfd = os.pidfd_open(child.pid)
        child.discard()
        assert select.select([pidfd], [], [], 0.0)[0]
        os.close(pidfd)


def test_a_descriptor_is_passed_on(started):
    reader, writer = os.pipe()
    child = started(write_to, Passed(writer))
    os.close(writer)
    with open(reader) as file:
        assert file.read() == "here"
    wait_end(child)
    assert child.reap() == 0


class Passed:
    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __reduce__(self):
        popen = multiprocessing.context.get_spawning_popen()
        return detached, (popen.DupFd(popen.duplicate_for_child(self.descriptor)),)


def detached(passed):
    return passed.detach()


def write_to(launch, descriptor):
    os.write(descriptor, b"here")
    os.close(descriptor)
