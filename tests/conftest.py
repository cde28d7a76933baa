"""What holds for every test: it leaves nothing behind, and touches nothing of the user's."""

from __future__ import annotations

import faulthandler
import gc
import itertools
import os
import random
import shutil
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

CEILING_SECONDS = 100.0  # of one test, reached only in a deadlock; below the timeout in setup.cfg
GRACE_SECONDS = 5.0  # for what was told to end, to be gone
STEP_SECONDS = 0.01

MARK = "IPEVENTS_TEST_RUN"  # in the environment of every process that a test starts, and of their children
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
PORTS = range(20_000, 32_000)  # the kernel gives no client a port of these

_stderr = os.dup(2)  # at import: what capturing puts there later is not shown in a deadlock


def pytest_configure(config):
    """A world of our own: state (the key file), runtime directory (the sockets of children)."""
    base = tempfile.mkdtemp(prefix="it-", dir="/tmp")  # short: the path of a socket has 107 bytes
    config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
    os.environ["XDG_STATE_HOME"] = os.path.join(base, "state")
    os.environ["XDG_RUNTIME_DIR"] = os.path.join(base, "run")
    os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
    os.environ.pop("IPEVENTS_AUTHKEY", None)
    os.environ[MARK] = uuid.uuid4().hex


def _ours(is_system_test: bool) -> list[psutil.Process]:
    """Every process that belongs to this test: the children, and orphans that the mark gives away."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    if is_system_test:
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                    found[process.pid] = process
            except (psutil.Error, OSError):
                continue  # gone, or somebody else's
    return [process for process in found.values() if not _is_helper(process)]


def _is_helper(process: psutil.Process) -> bool:
    try:
        return any(name in part for part in process.cmdline() for name in HELPERS)
    except psutil.Error:
        return True  # gone


def _shown(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} of {process.ppid()}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}, just gone"


def _left_over(is_system_test: bool) -> list[str]:
    left = [_shown(process) for process in _ours(is_system_test)]
    left += [
        f"thread {thread.name}" for thread in threading.enumerate() if thread.name.startswith("ipevents-")
    ]
    run = os.environ["XDG_RUNTIME_DIR"]
    left += [f"directory {name}" for name in os.listdir(run) if name.startswith("ipevents-")]
    return left


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    is_system_test = "system" in request.path.parts
    yield
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := _left_over(is_system_test)) and time.monotonic() < deadline:
        time.sleep(STEP_SECONDS)  # ends of processes that are not our children can only be looked for
    if left:
        processes = _ours(is_system_test)
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, GRACE_SECONDS)
        for path in Path(os.environ["XDG_RUNTIME_DIR"]).iterdir():
            shutil.rmtree(path)  # or every test that follows would fail
        pytest.fail("left behind: " + "; ".join(left))


@pytest.fixture
def all_is_given_back():
    """At the end of the test, without grace: no thread of ours runs, and no descriptor is open."""
    gc.collect()  # what tests before this one have left to the collector is not ours
    before = len(os.listdir("/dev/fd"))
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ipevents-")] == []
    assert len(os.listdir("/dev/fd")) == before


@pytest.fixture(autouse=True)
def _ceiling():
    """Long before the run is given up, the stacks of all threads are printed."""
    faulthandler.dump_traceback_later(CEILING_SECONDS, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


_ports = itertools.cycle(random.Random(os.getpid()).sample(PORTS, len(PORTS)))


def _free_port() -> int:
    for number in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
        return number
    raise AssertionError("unreachable")


@pytest.fixture
def port() -> int:
    """A TCP port on which nobody listens."""
    return _free_port()


@pytest.fixture
def second_port() -> int:
    """Another one."""
    return _free_port()


@pytest.fixture
def place():
    """A directory with a short path: that of a socket has at most 107 bytes."""
    path = tempfile.mkdtemp(prefix="s-", dir=os.path.dirname(os.environ["XDG_RUNTIME_DIR"]))
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture
def tree(place):
    """Processes that a test directs over a side channel, see directed.py."""
    from directed import Tree

    tree = Tree(place)
    yield tree
    tree.close()
