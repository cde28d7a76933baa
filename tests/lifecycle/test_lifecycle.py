"""A stop: what is left of it, whatever fails in the middle, and what it means where nothing was started."""

from __future__ import annotations

import queue
import signal
import threading
from types import SimpleNamespace

import pytest
from lives import CEILING_SECONDS, InThread, state_of, threads
from scripts import wait_until

from ipevents import Closed, Emitter, ForkedError, WouldDeadlock
from ipevents._core.messages import FAULT
from ipevents._core.state import Event, Stage, State
from ipevents._lifecycle import drain
from ipevents._platform.threads import start_thread
from ipevents._processes import supervisor
from ipevents._processes.role import HUNG_EXITCODE


def test_a_stop_before_any_start_changes_nothing(emitter):
    emitter.stop()
    assert not emitter.stopping
    assert state_of(emitter) is State.NEW


@pytest.mark.parametrize("again", [False, True])
def test_no_listener_begins_after_the_stop_although_one_has_kept_its_reader(again):
    def work():
        for number in range(200):
            ipem.sendToParents("x", number)

    from ipevents import ipem

    emitter = Emitter().options(useSocket=False, restart=False).start()
    heard = []
    runs = threading.Event()
    may_end = threading.Event()

    @emitter.on("x")
    def keeps(message, number):
        heard.append(number)
        runs.set()
        assert may_end.wait(CEILING_SECONDS)

    emitter.on("offline", lambda message, pid: heard.append("offline"))
    emitter.worker(work)
    assert runs.wait(CEILING_SECONDS)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith("ipevents-reader")]
    emitter.stop(timeout=0.1)
    assert state_of(emitter) is State.CLOSED
    if again:
        start = InThread(emitter.start)
    may_end.set()
    for reader in readers:
        reader.join(CEILING_SECONDS)
    if again:
        assert start.result() is None
        emitter.stop()
    assert heard == [0]
    stats = emitter.stats()  # how many of them came in the frame of the first one is a matter of chance
    assert stats["dropped"].get("stopped", 0) == stats["past"]["received"] - 1


@pytest.mark.parametrize("step", ["run_notices", "flush", "say_goodbye", "end_notices", "join"])
def test_a_stop_whose_last_steps_fail_comes_to_its_end_and_start_works_again(emitter, monkeypatch, step):
    def fails(*args):
        raise MemoryError

    emitter.start()
    with monkeypatch.context() as patch:
        patch.setattr(drain, step, fails)
        emitter.stop()
    assert state_of(emitter) is State.CLOSED
    wait_until(lambda: threads() == [], "the threads, which are not waited for long after a fault")
    emitter.start()
    assert state_of(emitter) is State.STARTED
    emitter.stop()


def test_a_stop_whose_first_step_fails_leaves_no_child_and_comes_to_its_end(emitter, monkeypatch):
    def fails():
        raise MemoryError

    emitter.options(useSocket=False).start()
    child = emitter.worker(lambda: threading.Event().wait())
    with monkeypatch.context() as patch:
        patch.setattr(emitter._life, "_close_entrances", fails)
        emitter.stop()
    assert child.join(0.0)
    assert child.exitcode == -signal.SIGKILL
    assert state_of(emitter) is State.CLOSED
    assert threads() == []
    emitter.start().stop()


def test_a_supervisor_that_fails_for_good_ends_the_emitter_and_who_waits_for_it(emitter, monkeypatch):
    class Lasting(Exception):
        pass

    def fails(*args):
        raise Lasting

    monkeypatch.setattr(supervisor, "patient", lambda faults: False)
    emitter.options(useSocket=False).start()
    child = emitter.worker(lambda: threading.Event().wait())
    monkeypatch.setattr(emitter._life.supervisor, "_step", fails)
    emitter._life.supervisor.sentinels.ring()
    with pytest.raises(SystemExit):
        emitter.run(CEILING_SECONDS)
    assert child.join(0.0)
    assert child.exitcode == -signal.SIGKILL
    assert state_of(emitter) is State.CLOSED
    assert threads() == []
    monkeypatch.undo()
    emitter.start().stop()


def test_a_stop_from_inside_does_not_block():
    emitter = Emitter().options(useSocket=False).start()
    with emitter._node.lock:
        emitter.stop()
        assert emitter.stopping
    assert emitter.run(CEILING_SECONDS)


# A stop that is asked for


@pytest.fixture
def life():
    """The life of an emitter whose supervisor only notes what it is asked for."""
    emitter = Emitter().options(useSocket=False, stopTimeout=7000)
    life = emitter._life
    life.supervisor = Supervisor()
    for event in (Event.START, Event.OPENED, Event.JOINED):
        life.node.change(event)
    yield life
    life.supervisor = None


class Supervisor:
    """As much of a supervisor as a stop asks."""

    def __init__(self):
        self.asked = []
        self.children = SimpleNamespace(
            control=lambda link, record: self.asked.append(record), add=self.asked.append
        )

    def request_stop(self, seconds):
        self.asked.append(seconds)

    def abandon(self):
        self.asked.append("abandon")

    def join(self, deadline):
        return True


class Role:
    """A role that notes what it is told."""

    is_child, orphaned, ends_at_once = True, False, False

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *args: self.told.append((name, *args))


@pytest.mark.parametrize(("given", "allowed"), [(None, 7.0), (0.5, 0.5), (0.0, 0.0)])
def test_a_stop_has_the_time_of_the_options_unless_it_is_given_one(life, given, allowed):
    life.request_stop(given)
    assert life.supervisor.asked == [allowed]
    assert life.stopping.is_set()


def test_a_stop_from_inside_asks_at_once_and_again_when_the_state_may_change(life):
    with life.node.lock:
        life.request_stop(None)
        assert life.supervisor.asked == [7.0]
        assert life.stopping.is_set()
    assert life.supervisor.asked == [7.0, 7.0]


@pytest.mark.parametrize("stage", [Stage.FORKED, Stage.CLOSED])
def test_what_does_not_run_or_is_anothers_is_not_asked_to_stop(life, stage):
    life.node.stage = stage
    life.request_stop(None)
    assert life.supervisor.asked == []
    assert not life.stopping.is_set()


def test_a_stop_from_inside_after_the_end_asks_for_nothing(life):
    life.node.stage = Stage.CLOSED
    with life.node.lock:
        life.request_stop(None)
    assert life.supervisor.asked == []
    assert not life.stopping.is_set()


def test_a_signal_handler_that_raises_in_a_request_leaves_it_made_or_not_begun(life, monkeypatch):
    def interrupted(seconds):
        life.supervisor.asked.append(seconds)
        if len(life.supervisor.asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(life.supervisor, "request_stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        life.request_stop(1.0)
    assert life.supervisor.asked == [1.0, 1.0], "it was begun, and so it is made"
    assert not life.node.inside()


def test_a_stop_by_its_user_tells_the_role_whether_it_waits(life, monkeypatch):
    life.become_child(role := Role(), depth=2, is_worker=True)
    monkeypatch.setattr(life, "may_wait", lambda: False)
    life.stop(None)
    monkeypatch.setattr(life, "may_wait", lambda: True)
    life.stopped.set()
    life.stop(1.0)
    assert [told for told in role.told if told[0] == "before_stop"] == [
        ("before_stop", False),
        ("before_stop", True),
    ]
    assert (life.depth, life.is_worker, life.is_child, life.is_quiet) == (2, True, True, False)


# Waits that could never end


def test_a_wait_is_refused_in_a_listener_before_anything_else_is_looked_at(life):
    life.node.stage = Stage.CLOSED
    life.node.dispatcher.enter()
    try:
        for check in (lambda: life.check_wait("waiting"), life.check_join, lambda: life.wait_stopped(0.0)):
            with pytest.raises(WouldDeadlock):
                check()
    finally:
        life.node.dispatcher.leave()
    with pytest.raises(Closed):
        life.check_wait("waiting")
    life.check_join()  # the end of a child is known after a stop as well


def test_a_wait_is_refused_in_a_thread_of_the_library_as_well(life):
    """A callback of an Answer runs in the thread that would bring what is waited for."""
    checks = {
        "waiting": lambda: life.check_wait("waiting"),
        "join()": life.check_join,
        "result()": lambda: life.check_join("result()"),
        "run()": lambda: life.wait_stopped(0.0),
    }
    refused = queue.SimpleQueue()

    def waits():
        for what, check in checks.items():
            try:
                check()
            except WouldDeadlock as exc:
                refused.put((what, str(exc)))

    start_thread("test", waits).join(CEILING_SECONDS)
    for what in checks:
        found, text = refused.get(timeout=0)
        assert found == what
        assert text.startswith(f"{what} waits, and nothing comes while a callback runs")
    life.check_wait("waiting")
    life.check_join()


def test_in_a_callback_of_an_answer_neither_an_event_nor_a_child_is_waited_for(emitter):
    def work() -> None:
        import threading

        from ipevents import ipem

        ipem.answer("x", lambda message: 1)
        ipem.start()
        threading.Event().wait()

    emitter.options(useSocket=False, restart=False).start()
    child = emitter.worker(work)
    waits = {
        "join()": lambda: child.join(0.0),
        "result()": lambda: child.result(0.0),
        "waiting for an event": lambda: emitter.waitFor("x", timeout=0.0),
        "run()": lambda: emitter.run(0.0),
    }
    refused = queue.SimpleQueue()

    def callback(answer):
        for what, wait in waits.items():
            try:
                wait()
                refused.put((what, None))
            except BaseException as exc:
                refused.put((what, exc))

    answer = child.requestAsync("x")
    answer.add_done_callback(callback)
    try:
        found = [refused.get(timeout=CEILING_SECONDS) for _ in waits]
    finally:
        emitter.stop()
    for what, (waited, exc) in zip(waits, found, strict=True):
        assert (waited, type(exc)) == (what, WouldDeadlock)
        assert what in str(exc)


def test_in_a_fork_no_child_is_waited_for(life):
    life.node.stage = Stage.FORKED
    with pytest.raises(ForkedError):
        life.check_join()


# A listener that ends the process


@pytest.mark.parametrize("state", [State.NEW, State.JOINING, State.CLOSED, State.FORKED])
def test_where_nothing_is_open_the_exit_is_the_emitters(life, state):
    life.node.state.state = state
    with pytest.raises(SystemExit):
        life._listener_exit(SystemExit(3))
    assert life.exit is None
    assert life.supervisor.asked == []


def test_the_first_exit_is_the_one_that_counts_and_each_new_one_asks_for_the_stop(life):
    first, second = SystemExit(3), SystemExit(4)
    for exc in (first, first, second):  # the same once more, through the listener that emitted
        life._listener_exit(exc)
    assert life.exit is first
    assert life.supervisor.asked == [7.0, 7.0]


def test_a_supervisor_that_has_failed_says_so_here_and_to_the_parent(life, caplog):
    life.become_child(role := Role(), depth=1, is_worker=False)
    life._supervisor_failed(ZeroDivisionError("mine"))
    assert life.stopping.is_set()
    assert life.exit.code == HUNG_EXITCODE
    (report,) = [told[1] for told in role.told if told[0] == "report"]
    assert report[0] == FAULT
    assert "ZeroDivisionError" in report[1]
    assert "the supervisor failed, and everything is ended" in caplog.text


def test_no_child_is_started_while_it_stops(life):
    life.node.change(Event.STOP)
    with pytest.raises(Closed, match="is stopping"):
        life.add_child("child")
    assert life.supervisor.asked == []


# os.fork()


def test_an_emitter_that_ran_belongs_to_the_parent_of_a_fork(life):
    life.become_child(role := Role(), depth=1, is_worker=False)
    life.abandon()
    assert life.node.stage is Stage.FORKED
    assert life.supervisor.asked == ["abandon"]
    assert ("abandon",) in role.told


def test_an_emitter_that_never_ran_is_the_forks_own_and_another_incarnation():
    life = Emitter()._life
    before = life.incarnation
    life.abandon()
    assert life.node.stage is Stage.NEW
    assert life.incarnation != before


def test_a_process_that_a_child_forks_does_not_write_the_page_of_the_child(life):
    """Its parent would take that for what the child has begun."""
    life.page = object()
    life.become_child(Role(), depth=1, is_worker=False)
    life.abandon()
    assert life.page is None


# The next life


def notices_thread(emitter: Emitter) -> threading.Thread:
    (found,) = (t for t in threading.enumerate() if t.name == f"ipevents-notices-{emitter.pid}")
    return found


def test_a_listener_of_stopping_that_outlives_its_stop_ends_no_wait_of_the_next_life():
    emitter = Emitter().options(useSocket=False)
    goes_on = threading.Event()
    emitter.once("stopping", lambda message: goes_on.wait(CEILING_SECONDS))
    emitter.start()
    former = notices_thread(emitter)
    emitter.stop(0.0)
    starter = threading.Thread(target=emitter.start)  # it waits for that listener to return
    starter.start()
    goes_on.set()
    starter.join(CEILING_SECONDS)
    former.join(CEILING_SECONDS)
    with emitter.expecting("stopping", CEILING_SECONDS) as got:
        assert not got._came.is_set()
        emitter.stop()
    assert got.message.event == "stopping"
