"""What follows the end of a child, where the system refuses; for all else see system/test_restart.py."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import threading

import pytest
from quiet import Owner, quiet_worker
from scripts import wait_until

from ipevents import Emitter, GaveUp, ProtocolError, StartFailed, TargetFailed
from ipevents._core.child_states import Phase
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


# The shared page


@pytest.fixture(params=["forkserver", "spawn"])
def either(request):
    """An emitter that starts children by one method or the other."""
    options = {"useSocket": False, "delayRestart": 0, "maxRestarts": 2, "startMethod": request.param}
    with Emitter().options(options) as emitter:
        yield emitter


def begin_and_die():
    from ipevents import ipem

    page = ipem._life.page
    page.begin(0, 4711)
    page.begin(page.lane_of("own"), 4712)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_child_wrote_on_its_page_is_read_after_it_was_killed(either):
    either.options(delayRestart=60_000)  # its process is gone, and no other one has begun
    with either.expecting("error", CEILING_SECONDS, lambda message, error: type(error) is StartFailed) as got:
        state = either.worker(begin_and_die, restart=True)._state
    assert got.message.args[0].exitcode == -signal.SIGKILL
    assert state.phase is Phase.WAITING
    assert state.page.begun_last("other") == (0, 4711)
    assert state.page.begun_last("own") == (1, 4712)


def begin_and_wait():
    from ipevents import ipem

    ipem._life.page.begin(0, os.getpid())
    ipem.sendToParents("begun", os.getpid())
    signal.pause()


def test_each_start_has_a_page_of_its_own(either):
    with either.expecting("begun", CEILING_SECONDS) as first:
        child = either.worker(begin_and_wait, restart=True)
    state, seen = child._state, []
    before, attach_early = state.page, state.attach_early
    assert before.begun_last("x") == (0, first.message.args[0])

    def look():  # it has begun nothing, as it has no connection yet
        seen.append(state.page.begun_last("x"))
        attach_early()

    state.attach_early = look
    with either.expecting("begun", CEILING_SECONDS) as second:
        child.process.kill()
    assert seen == [(0, 0)]
    assert second.message.args != first.message.args
    assert state.page.begun_last("x") == (0, second.message.args[0])
    assert before.begun_last("x") == (0, 0), "the page of a process that is gone is let go"


def test_the_page_is_let_go_with_the_child(emitter):
    with emitter.expecting("begun", CEILING_SECONDS):
        child = emitter.worker(begin_and_wait)
    page = child._state.page
    child.kill()
    assert child.join(CEILING_SECONDS)
    assert child._state.page is None
    assert page.begun_last("x") == (0, 0)


def count_with_and_without():
    from ipevents import ipem

    counts = [len(os.listdir("/dev/fd"))]
    ipem._life.page.close()
    counts.append(len(os.listdir("/dev/fd")))
    ipem.sendToParents("counts", *counts)
    signal.pause()


def test_after_the_start_each_process_keeps_for_the_page_what_its_mapping_needs(either):
    """It is given back when the page is let go."""
    kept = int(sys.version_info < (3, 13))  # descriptors that a mapping keeps
    with either.expecting("counts", CEILING_SECONDS) as got:
        child = either.worker(count_with_and_without)
    assert got.message.args[0] == got.message.args[1] + kept
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    child._state.page.close()
    assert len(os.listdir("/dev/fd")) == before - kept


def test_without_a_page_there_is_no_child(either, monkeypatch):
    def refuse():
        raise OSError(errno.EMFILE, "no descriptor")

    with monkeypatch.context() as patch:
        patch.setattr(module.SharedPage, "create", refuse)
        with pytest.raises(OSError, match="no descriptor"):
            either.worker(signal.pause)
        assert len(either._life.supervisor.children) == 0
    assert either.worker(signal.pause).alive


def test_a_start_that_fails_keeps_no_page_and_no_descriptor(emitter, monkeypatch):
    first = emitter.worker(signal.pause)
    wait_until(lambda: first._state.link.connection is not None)  # its link opens no descriptor any more
    pages, create = [], module.SharedPage.create

    def noted():
        pages.append(create())
        return pages[0]

    def refuse(main, launch, *_):
        launch.page.begin(0, 5)
        raise OSError(errno.EAGAIN, "refused")

    monkeypatch.setattr(module.SharedPage, "create", noted)
    monkeypatch.setattr(module, "ChildProcess", refuse)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="refused"):
        emitter.worker(signal.pause)
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before
    assert pages[0].begun_last("x") == (0, 0)


# Children that are coming


def plays():
    from ipevents import ipem

    ipem.start()
    signal.pause()


@pytest.fixture
def coming(emitter, monkeypatch):
    """Tells whether a child is coming; ``settled`` has that for each time at which the asks were told."""
    children, settled = emitter._life.supervisor.children, []

    def note():
        assert emitter._node.inside()
        settled.append(children.is_any_coming())

    monkeypatch.setattr(emitter._life.asks, "child_settled", note)

    def is_any_coming():
        with emitter._node.lock:
            return children.is_any_coming()

    is_any_coming.settled = settled
    return is_any_coming


def test_a_child_is_coming_until_its_online_and_again_after_its_end(emitter, coming):
    emitter.options(delayRestart=60_000)
    assert not coming()
    with emitter.expecting("online", CEILING_SECONDS):
        child = emitter.worker(plays, restart=True)
        assert coming() or coming.settled  # it may be faster
    assert not coming()
    assert coming.settled == [False]
    with emitter.expecting("offline", CEILING_SECONDS):
        child.process.kill()
    assert coming()
    child.kill()
    assert not coming()
    assert child.join(CEILING_SECONDS)
    assert set(coming.settled) == {False}


def test_a_child_that_ends_before_its_online_is_coming_until_it_is_not_started_again(emitter, coming):
    child = emitter.worker(signal.pause, restart=False)
    assert coming()
    child.process.kill()
    assert child.join(CEILING_SECONDS)
    assert not coming()
    assert coming.settled == [False]


def test_a_child_that_is_to_stop_is_not_coming(emitter, coming):
    child = emitter.worker(signal.pause)
    children = emitter._life.supervisor.children
    children.stop_child(child._state, CEILING_SECONDS)
    assert not coming()
    assert coming.settled[0] is False
    child.kill()
    assert child.join(CEILING_SECONDS)


def test_where_a_first_start_fails_the_asks_are_told(emitter, coming, monkeypatch):
    found = []

    def refuse(*_):
        found.append(coming())
        raise OSError(errno.EAGAIN, "refused")

    monkeypatch.setattr(module, "ChildProcess", refuse)
    with pytest.raises(OSError, match="refused"):
        emitter.worker(signal.pause)
    assert found == [True]
    assert coming.settled == [False]


def test_a_quiet_child_is_never_coming(emitter, coming):
    owner = Owner()
    child = quiet_worker(emitter, plays, **owner.hooks())
    assert not coming()
    owner.wait("online")
    child.kill()
    owner.wait("end")
    assert not coming()


# Quiet children


@pytest.fixture
def errors(emitter):
    """The errors that listeners hear."""
    heard = []
    emitter.on("error", lambda message, error: heard.append(error))
    return heard


def told(emitter):
    """Wait until the notices thread has told all that was noticed."""
    over = threading.Event()
    emitter._node.events.notify(over.set)
    assert over.wait(CEILING_SECONDS)


def test_the_owner_is_told_in_the_supervisors_thread_without_the_lock(emitter):
    found, over = [], threading.Event()

    def note(*_):
        found.append((threading.current_thread().name, emitter._node.inside()))

    hooks = {"on_online": note, "on_failure": note, "on_end": lambda: (note(), over.set())}
    quiet_worker(emitter, raises_late, **hooks)
    assert over.wait(CEILING_SECONDS)
    assert found == [(f"ipevents-supervisor-{emitter.pid}", False)] * 3


def fails_early():
    sys.exit(3)


def test_failures_of_a_quiet_child_are_told_to_its_owner_and_to_no_listener(emitter, errors, caplog):
    owner = Owner()
    child = quiet_worker(emitter, fails_early, restart=True, **owner.hooks())
    owner.wait("end")
    told(emitter)
    assert owner.kinds == [StartFailed, StartFailed, GaveUp, "end"]
    assert child._state.error is owner.told[-2]
    assert child._state.ended.is_set()
    assert (errors, caplog.records) == ([], [])


def raises_late():
    from ipevents import ipem

    ipem.start()
    raise ValueError("late")


def test_a_restart_of_a_quiet_child_is_told_as_another_online(emitter, errors):
    owner = Owner()
    child = quiet_worker(emitter, raises_late, restart=True, **owner.hooks())
    owner.wait("online", 2)
    child.kill()
    owner.wait("end")
    told(emitter)
    assert owner.kinds[:3] == ["online", TargetFailed, "online"]
    assert errors == []


def test_a_restart_that_fails_is_told_to_the_owner(emitter, errors, monkeypatch):
    owner = Owner()
    child = quiet_worker(emitter, plays, restart=True, **owner.hooks())
    owner.wait("online")

    def refuse(*_):
        raise OSError(errno.EAGAIN, "refused")

    monkeypatch.setattr(module, "ChildProcess", refuse)
    child.process.kill()
    owner.wait("end")
    told(emitter)
    assert owner.kinds[:2] == ["online", StartFailed]
    assert "refused" in str(owner.told[1])
    assert errors == []


def sends_nonsense(over):
    from ipevents import ipem

    with ipem.expecting("parent"):  # the answer to its online
        ipem.start()
    role = ipem._life.role
    if over == "the link":
        os.write(role.link.connection.socket.fileno(), b"\0\0\0\5hello")
    else:
        role.up.channel.put((99, "news"))
        ipem._life.supervisor.sentinels.ring()
    signal.pause()


@pytest.mark.parametrize("over", ["the link", "the control channel"])
def test_a_quiet_child_that_sends_nonsense_is_hung_up_and_told_to_its_owner(emitter, errors, over):
    owner = Owner()
    quiet_worker(emitter, sends_nonsense, over, **owner.hooks())
    owner.wait("end")
    told(emitter)
    assert owner.kinds[:2] == ["online", ProtocolError]
    assert owner.kinds[-1] == "end"
    assert "makes no sense" in str(owner.told[1])
    assert errors == []


def test_what_an_owner_raises_is_logged_and_the_rest_goes_on(emitter, caplog):
    over = threading.Event()

    def fault(*_):
        raise SystemExit("a fault")

    def end():
        over.set()
        raise ZeroDivisionError

    quiet_worker(emitter, raises_late, on_online=fault, on_failure=fault, on_end=end)
    assert over.wait(CEILING_SECONDS)
    other = emitter.worker(plays)
    other.kill()
    assert other.join(CEILING_SECONDS), "the supervisor goes on"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(line.startswith("! what was to be told of child quiet (") for line in lines)


def test_without_hooks_a_quiet_child_is_just_quiet(emitter, errors, caplog):
    child = quiet_worker(emitter, raises_late)
    assert child.join(CEILING_SECONDS)
    told(emitter)
    assert (errors, caplog.records) == ([], [])
    assert type(child._state.error) is TargetFailed


def test_the_end_is_told_where_the_supervisor_fails(monkeypatch):
    owner = Owner()
    emitter = Emitter().options(useSocket=False).start()
    quiet_worker(emitter, plays, **owner.hooks())
    owner.wait("online")

    def fails(until):
        raise MemoryError

    monkeypatch.setattr(supervisor, "patient", lambda faults: False)
    monkeypatch.setattr(emitter._life.supervisor, "_step", fails)
    emitter._life.supervisor.sentinels.ring()
    emitter.stop(CEILING_SECONDS)
    owner.wait("end")
    assert owner.told == ["online", "end"]


def test_what_waits_for_a_quiet_child_that_is_stopped_before_its_online_is_no_warning(emitter, caplog):
    owner = Owner()
    child = quiet_worker(emitter, signal.pause, **owner.hooks())
    child.send("x")
    child.kill()
    owner.wait("end")
    assert caplog.records == []
