"""What holds for every test: it leaves nothing behind, and touches nothing of the user's."""

from __future__ import annotations

import compileall
import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from multiprocessing import resource_tracker
from pathlib import Path

import balance
import hypothesis
import ports
import psutil
import pytest

from ipevents._lifecycle.lifecycle import Lifecycle

CEILING_SECONDS = 100.0  # of one test, reached only in a deadlock; below the timeout in setup.cfg
GRACE_SECONDS = 5.0  # for what was told to end, to be gone
STEP_SECONDS = 0.01

MARK = "IPEVENTS_TEST_RUN"  # in the environment of every process that a test starts, and of their children
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Not judged by the clock: neither how long an example takes, nor how long it takes to make one.
hypothesis.settings.register_profile(
    "ipevents", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ipevents")
PACKAGE = Path(__file__).resolve().parent.parent / "ipevents"
BOOKS = Path(__file__).resolve().parent / "programs" / "books"
# A shell script ignores SIGINT in what it starts in the background, and so would all that is started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_base = pytest.StashKey[str]()
_stderr = pytest.StashKey[int]()  # where a deadlock is shown, whatever capturing puts there for a test


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """For ``-n auto``: more than there are cores, as most tests wait for processes that they started."""
    return 3 * (os.cpu_count() or 1)


def pytest_configure(config):
    """A world of our own for each process that runs tests, and for the one that hands them out to workers.

    State (the key file), runtime directory (the sockets of children), ports, and a mark for what it starts.
    The worlds of workers lie in that of who started them, and go with it, also if a worker was killed.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None:
        base = tempfile.mkdtemp(prefix="it-", dir="/tmp")  # short: the path of a socket has 107 bytes
        config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
        if sys.dont_write_bytecode:
            # Once here, or each of some thousand processes compiles the package for itself.
            compileall.compile_dir(PACKAGE, quiet=2)
    else:
        base = os.path.join(worker["base"], worker["workerid"])
        os.mkdir(base, 0o700)
    config.stash[_base] = base
    config.stash[_stderr] = os.dup(2)  # nothing is captured now, but is where this module is imported
    config.add_cleanup(lambda: os.close(config.stash[_stderr]))
    os.environ["XDG_STATE_HOME"] = os.path.join(base, "state")
    os.environ["XDG_RUNTIME_DIR"] = os.path.join(base, "run")
    os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
    os.environ.pop("IPEVENTS_AUTHKEY", None)
    os.environ[MARK] = uuid.uuid4().hex
    os.environ["IPEVENTS_TEST_BOOKS"] = os.path.join(base, "books")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(BOOKS), os.environ.get("PYTHONPATH"))))
    balance.watch(Lifecycle, _note_imbalance)
    config.add_cleanup(ports.claim())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """What a worker is told before it starts."""
    node.workerinput["base"] = node.config.stash[_base]


def _note_imbalance(words: str) -> None:
    with open(os.environ["IPEVENTS_TEST_BOOKS"], "a") as file:
        file.write(words + "\n")


@pytest.fixture(autouse=True)
def _books_are_right():
    """At the end of the test, in each process that it had: all that was sent is in one place of the books."""
    path = Path(os.environ["IPEVENTS_TEST_BOOKS"])
    path.unlink(missing_ok=True)
    yield
    if path.exists():
        pytest.fail(f"the books are wrong: {path.read_text()}")


def _ours(is_system_test: bool) -> list[psutil.Process]:
    """Every process that belongs to this test: the children, and orphans that the mark gives away."""
    found = {}
    if _has_children():
        found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    if is_system_test:
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                    found[process.pid] = process
            except (psutil.Error, OSError):
                continue  # gone, or somebody else's
    return [process for process in found.values() if not _is_helper(process)]


def _has_children() -> bool:
    """Whether this process has any, told without a look at all others, where the system can."""
    try:
        return any(path.read_bytes() for path in Path("/proc/self/task").glob("*/children"))
    except OSError:  # a thread that has just ended
        return True


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


@pytest.fixture(autouse=True, scope="session")
def _main_thread_has_waited():
    """The first wait of the main thread makes a pipe that stays for all others, and is nothing left over."""
    from ipevents._platform.latches import Latch

    Latch().wait(0.0)


@pytest.fixture(autouse=True)
def _nothing_is_left(request, _books_are_right):
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
    resource_tracker.ensure_running()  # the pipe of the first start stays for all others
    gc.collect()  # what tests before this one have left to the collector is not ours
    before = len(os.listdir("/dev/fd"))
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ipevents-")] == []
    assert len(os.listdir("/dev/fd")) == before


@pytest.fixture(autouse=True)
def _ceiling(request):
    """Before the test is given up, and its process with it, the stacks of all threads are printed."""
    faulthandler.dump_traceback_later(CEILING_SECONDS, file=request.config.stash[_stderr])
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def port() -> int:
    """A TCP port on which nobody listens."""
    return ports.free_port()


@pytest.fixture
def second_port() -> int:
    """Another one."""
    return ports.free_port()


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


@pytest.fixture
def recorders():
    """Makes recorders, and stops them, clients first."""
    from recorder import Recorder

    made = []

    def make(*events, **options):
        made.append(Recorder(*events, **options))
        return made[-1]

    yield make
    for recorder in reversed(made):
        recorder.emitter.stop()


@pytest.fixture
def places():
    """Makes nodes that a test joins by real links, see places.py."""
    from places import Place

    made = []

    def make(pid):
        made.append(Place(pid))
        return made[-1]

    yield make
    for place in made:
        place.end()


@pytest.fixture
def line(places):
    """Three places: top, middle and leaf."""
    from places import join, settle

    top, middle, leaf = places("top"), places("middle"), places("leaf")
    top.node.announced = True
    join(top, middle)
    join(middle, leaf)
    settle(top, middle, leaf)
    return top, middle, leaf


@pytest.fixture
def raw(places):
    """Makes children of a place that are only sockets, see places.py."""
    from places import Raw

    made = []

    def make(*args, **kwargs):
        made.append(Raw(*args, **kwargs))
        return made[-1]

    yield make
    for item in made:
        item.socket.close()
        item._ours.close()
