"""What is known of the life that an emitter is in."""

from __future__ import annotations

import signal
import threading

import pytest
from places import join, settle

from ipevents._core.messages import TO_CHILD
from ipevents._core.state import State
from ipevents._lifecycle.life import Life, new_incarnation, wait_end
from ipevents._platform.latches import Latch
from ipevents._platform.threads import Deadline, start_thread

CEILING_SECONDS = 20.0  # reached only in a deadlock


@pytest.fixture
def place(places):
    return places("me")


@pytest.fixture
def life(place):
    return Life(place.node)


class Supervisor:
    """As much of a supervisor as a life asks."""

    def __init__(self, resends=True):
        self.asked = []
        self._resends = resends

    def resend(self, number):
        self.asked.append(("resend", number))
        return self._resends

    def kill_all(self):
        self.asked.append("kill_all")

    def join(self, deadline):
        self.asked.append("join")
        return True


class PublicSocket:
    def __init__(self, cannot):
        self._cannot = cannot

    def cannot_serve(self):
        return self._cannot


def test_a_life_begins_with_nothing_of_another_one(life):
    assert not life.is_child
    assert (life.supervisor, life.public_socket, life.exit) == (None, None, None)
    assert not life.stopping.is_set()
    assert not life.stopped.is_set()
    assert life.waiters == life.stop_waiters == set()


@pytest.mark.parametrize("state", State)
def test_it_has_started_from_the_call_of_start_to_the_end_of_the_stop_and_not_by_threads_alone(life, state):
    life.node.state.state = state
    started = state in (State.JOINING, State.STARTING, State.STARTED, State.STOPPING)
    assert life.has_started is started


def test_ready_is_said_once_also_by_its_own_listener(place, life):
    place.listen("ready").on("ready", lambda message: life.say_ready())
    life.say_ready()
    life.say_ready()
    assert place.heard.qsize() == 1


def test_incarnations_are_of_64_bits_and_differ():
    made = {new_incarnation() for _ in range(100)}
    assert len(made) == 100
    assert all(0 <= number < 1 << 64 for number in made)
    assert max(made) >= 1 << 56, "all bytes are in use"


@pytest.mark.parametrize("method", ["make_supervisor", "abandon"])
def test_what_makes_and_ends_the_parts_is_the_lifecycles(life, method):
    with pytest.raises(NotImplementedError):
        getattr(life, method)()
    with pytest.raises(NotImplementedError):
        life.request_stop(None)


# For handlers of signals, and for exits


def test_without_a_supervisor_no_signal_is_sent_again_and_there_is_nobody_to_kill(life):
    assert life.resend(signal.SIGINT) is False
    life.kill_children()


@pytest.mark.parametrize("resends", [True, False])
def test_a_supervisor_sends_signals_again_and_kills(life, resends):
    life.supervisor = Supervisor(resends)
    assert life.resend(signal.SIGINT) is resends
    life.kill_children()
    assert life.supervisor.asked == [("resend", signal.SIGINT), "kill_all"]


@pytest.mark.parametrize("cannot", [True, False])
def test_clients_are_lost_only_where_there_is_a_socket_that_cannot_serve(life, cannot):
    assert life.cannot_serve() is False
    life.public_socket = PublicSocket(cannot)
    assert life.cannot_serve() is cannot


# Who may wait for the end


def test_a_thread_that_the_stop_does_not_need_may_wait(life):
    assert life.may_wait()


def test_who_holds_the_state_lock_may_not(life):
    with life.node.lock:
        assert not life.may_wait()
    assert life.may_wait()


def test_a_listener_may_not(place, life):
    found = []
    place.on("x", lambda message: found.append(life.may_wait()))
    place.node.events.emit("x", (), {})
    assert found == [False]


def test_a_thread_of_the_library_may_not(life):
    found = []
    start_thread("test", lambda: found.append(life.may_wait())).join(CEILING_SECONDS)
    assert found == [False]


def test_who_has_the_right_to_write_to_a_neighbour_may_not(places, place, life):
    child = places("child").listen("x")
    link, _ = join(place, child)
    settle(place, child)
    with place.node.lock:
        place.node.router.add_child("no link", "other")
        assert link.flush(Deadline(CEILING_SECONDS))
        assert link.outbox.offer(place.node.router.plan_here(TO_CHILD, "x", ("child",)), (1,), 10)
        assert link.claim_now()
    assert not life.may_wait()
    found = []
    thread = threading.Thread(target=lambda: found.append(life.may_wait()))
    thread.start()
    thread.join(CEILING_SECONDS)
    assert found == [True], "another thread may"
    link.give_back()
    assert life.may_wait()
    assert child.next()[:2] == ("x", (1,))


def test_a_signal_handler_may_not(life, monkeypatch):
    found = []
    before = signal.signal(signal.SIGUSR1, lambda *_: found.append(life.may_wait()))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == [True], "in code that nothing of the library has called"
    monkeypatch.setattr("ipevents._lifecycle.life.in_handler", lambda: True)
    assert not life.may_wait()


# Waits


def test_the_thread_that_brings_the_end_about_is_waited_for_once_that_has_come():
    stopped, supervisor = Latch(), Supervisor()
    assert wait_end(stopped, supervisor, 0.0) is False
    assert supervisor.asked == []
    stopped.set()
    assert wait_end(stopped, supervisor, None) is True
    assert supervisor.asked == ["join"]
    assert wait_end(stopped, None, None) is True


def test_a_wait_is_for_the_life_in_which_it_began(life):
    begun, over = threading.Event(), []
    before = life.stopped

    class Noting(Latch):
        def wait(self, timeout=None):
            begun.set()
            return super().wait(timeout)

    life.stopped = before = Noting()
    thread = threading.Thread(target=lambda: over.append(life.wait_over(CEILING_SECONDS)))
    thread.start()
    assert begun.wait(CEILING_SECONDS)
    with life.node.lock:
        life.stopped = Latch()  # of another life, which goes on
    before.set()
    thread.join(CEILING_SECONDS)
    assert over == [True]


def test_run_of_a_top_process_waits_for_the_end_of_its_life(life):
    assert life.role.wait_stop(0.0) is False
    life.stopped.set()
    assert life.role.wait_stop(None) is True
