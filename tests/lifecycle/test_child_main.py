"""What keeps a child whose function has returned; for how children end see system/test_exits.py."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from quiet import quiet_worker

from ipevents import Emitter
from ipevents._core.messages import FAILED, MAX_TEXT, PROGRAM, STOP
from ipevents._core.stopping import Handler, Raised
from ipevents._exceptions import ProtocolError
from ipevents._lifecycle import child_main as module
from ipevents._lifecycle.child_main import ChildRole
from ipevents._platform.latches import Latch
from ipevents._platform.threads import Deadline
from ipevents._processes.process import Launch

CEILING_SECONDS = 30.0


@pytest.fixture
def emitter():
    with Emitter().options(useSocket=False) as emitter:
        yield emitter


def assert_it_is_done_and_finishes(emitter, work):
    with emitter.expecting("done", CEILING_SECONDS):
        child = emitter.worker(work)
    assert child.join(CEILING_SECONDS)
    assert (child.exitcode, child.restarts) == (0, 0)


def test_a_thread_of_the_user_keeps_a_child_and_its_link_until_it_ends(emitter):
    def work() -> None:
        import threading

        from ipevents import ipem

        function_is_over = threading.Event()

        class Waited(threading.Thread):
            def join(self, timeout: float | None = None) -> None:
                function_is_over.set()  # only then something waits for its end
                super().join(timeout)

        def go_on() -> None:
            function_is_over.wait()
            ipem.sendToParents("done")

        Waited(target=go_on).start()

    assert_it_is_done_and_finishes(emitter, work)


def test_a_stop_goes_on_as_soon_as_the_program_is_over_that_it_waits_for(emitter):
    """It looks by itself only for the warning of held events, after 10 s, and after the grace."""

    def work() -> None:
        import threading

        from ipevents import ipem

        is_looking = threading.Event()
        role = ipem._life.role
        hurry = role.hurry

        def looks(deadline, **alone):
            look_at = hurry(deadline, **alone)
            is_looking.set()
            return look_at

        role.hurry = looks
        ipem._life.request_stop(1000.0)
        is_looking.wait()

    child = emitter.worker(work, restart=False, stopGrace=900_000)
    assert child.join(9.0)


def test_an_executor_that_was_left_open_finishes_its_work_and_keeps_no_child(emitter):
    def work() -> None:
        import time
        from concurrent.futures import ThreadPoolExecutor

        import ipevents

        pool = ipevents.pool_of_the_test = ThreadPoolExecutor(2)  # referred to until the end
        pool.submit(time.sleep, 0.2)  # work that lasts longer than the function
        pool.submit(lambda: None).result()
        pool.submit(lambda: ipevents.ipem.sendToParents("done"))

    assert_it_is_done_and_finishes(emitter, work)


def test_a_child_that_a_thread_keeps_is_stopped_in_time(emitter):
    def work() -> None:
        import threading

        threading.Thread(target=threading.Event().wait).start()

    with emitter.expecting("online", CEILING_SECONDS):
        child = emitter.worker(work)
    child.stop(timeout=1.0)
    assert child.join(CEILING_SECONDS)
    assert not child.alive


@pytest.fixture
def role(monkeypatch):
    """A child with the library's handler for SIGTERM; what it sends its main thread is noted in ``sent``."""
    life = SimpleNamespace(
        stopping=Latch(),
        stopped=Latch(),
        node=SimpleNamespace(router=SimpleNamespace(pid="1")),
        supervisor=None,
        stop_waiters=set(),
    )
    launch = Launch("/nonexistent/children", b"start", b"a token", os.getpid(), 1, True, "spawn", 0.0)
    made = ChildRole(life, launch)  # type: ignore[arg-type]  # as much of a life as it needs
    made.sent = []
    monkeypatch.setattr(module.signal, "pthread_kill", lambda ident, number: made.sent.append(number))
    monkeypatch.setattr(module.os_signals, "term_handler", lambda: Handler.OURS)
    monkeypatch.setattr(module.signal_exceptions, "raised", lambda: Raised.NEVER)
    return made


def test_of_a_traceback_that_is_too_long_the_parent_is_told_the_end(emitter):
    def work() -> None:
        raise ValueError("x" * (3 << 20) + "the end")

    emitter.options(restart=False)
    with emitter.expecting("error", CEILING_SECONDS) as got:
        emitter.worker(work)
    traceback = got.message.args[0].traceback
    assert (len(traceback), traceback.rstrip()[-7:]) == (MAX_TEXT, "the end")


def test_a_child_has_one_program(role):
    role._control((PROGRAM, (), "", None, [b"the first"]))
    with pytest.raises(ProtocolError, match="second program"):
        role._control((PROGRAM, (), "", None, [b"the second"]))
    assert role._program.get_nowait()[-1] == [b"the first"]
    assert role._program.empty()


def test_a_stop_that_comes_before_the_program_signals_nothing_until_that_has_begun(role):
    look_at = role.hurry(Deadline(CEILING_SECONDS), alone=True)
    assert (role.sent, look_at is not None) == ([], True)
    role._begun = True
    role.hurry(Deadline(CEILING_SECONDS), alone=True)
    assert role.sent == [module.signal.SIGTERM]


def test_nothing_is_signalled_when_the_program_has_been_left_or_is_in_a_wait_that_ends_by_itself(
    role, monkeypatch
):
    role._begun = True
    latch = Latch()
    monkeypatch.setattr(module, "main_waits_for", lambda: latch)
    role.hurry(Deadline(CEILING_SECONDS), alone=False)  # perhaps for a child
    role.life.stop_waiters.add(latch)
    role.hurry(Deadline(CEILING_SECONDS), alone=True)  # until the listeners of ``stopping`` have run
    role.life.stop_waiters.clear()
    latch.set()
    role.hurry(Deadline(CEILING_SECONDS), alone=True)  # about to go on
    monkeypatch.setattr(module, "main_waits_for", lambda: None)
    role._left.set()
    role.hurry(Deadline(CEILING_SECONDS), alone=True)
    assert role.sent == []


def test_a_wait_that_no_stop_ends_is_signalled_once_there_is_no_child_any_more(role, monkeypatch):
    role._begun = True
    monkeypatch.setattr(module, "main_waits_for", Latch)
    role.hurry(Deadline(CEILING_SECONDS), alone=True)
    assert role.sent == [module.signal.SIGTERM]


def test_an_outside_signal_in_a_stop_adds_nothing_to_what_is_being_unwound(role, monkeypatch):
    role._begun = True
    found = [role.takes_no_signal()]
    role.life.stopping.set()
    found.append(role.takes_no_signal())  # it counts as the signal of the stop
    monkeypatch.setattr(module.signal_exceptions, "raised", lambda: Raised.ALIVE)
    found.append(role.takes_no_signal())
    role.life.stopped.set()
    found.append(role.takes_no_signal())  # code after a stop of its own
    assert found == [False, False, True, False]


def test_the_parent_sends_the_program_and_the_stop_and_nothing_else_is_listened_to(role):
    asked = []
    role.life.request_stop = asked.append
    program = (PROGRAM, (), "", None, [()])
    for record in [program, (STOP, 1500), (STOP, 0), (FAILED, "x", False), (99, "news")]:
        role._control(record)
    assert (role._program.get_nowait(), role._program.empty()) == (program, True)
    assert asked == [1.5, module.LEAST_STEP_SECONDS / 2]


def tells_what_it_hears():
    from ipevents import ipem

    heard = []
    for event in ("ready", "online", "parent"):
        ipem.on(event, lambda message, *_: heard.append(message.event))
    ipem.start()
    ipem.waitFor("go")
    ipem.sendToParents("heard", ipem._life.is_quiet, *heard)


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_quiet_child_does_not_hear_of_its_own_online(emitter, is_quiet):
    with emitter.expecting("heard", CEILING_SECONDS) as got:
        quiet_worker(emitter, tells_what_it_hears, is_quiet=is_quiet).send("go")
    expected = ["ready", "parent"] if is_quiet else ["ready", "online", "parent"]
    assert got.message.args == (is_quiet, *expected)
