"""What all parts of a node share: stage, state lock, and what a process is called."""

from __future__ import annotations

import inspect
import threading

import pytest
from places import CEILING, inside, settle

from ipevents._core.messages import BROADCAST
from ipevents._core.state import Event, Stage, State
from ipevents._exceptions import Closed, ForkedError, NotStarted, UnknownProcess
from ipevents._platform.host import process_name


@pytest.fixture
def node(places):
    return places("4711").node


def test_a_mistake_made_inside_is_an_error_event(line):
    top = line[0].hear_errors()
    inside(top, lambda: top.send_child("nobody", "x"))
    assert isinstance(top.next_error(), UnknownProcess)


def test_however_much_is_queued_from_inside_runs_one_behind_the_other(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    depths = set()
    top.on("local", lambda message: depths.add(len(inspect.stack(0))))

    def call():
        for number in range(1000):
            top.send(BROADCAST, "x", number)
            top.node.events.emit("local", (), {})

    inside(top, call)
    assert [middle.next()[1] for _ in range(1000)] == [(number,) for number in range(1000)]
    assert len(depths) == 1
    assert top.node.lock.deferred == {}


# Stages


@pytest.mark.parametrize(
    ("stage", "error", "text"),
    [
        (Stage.NEW, NotStarted, "{} has not started: call ipem.start() first"),
        (Stage.STOPPING, Closed, "{} is stopping"),
        (Stage.CLOSED, Closed, "{} was stopped"),
        (
            Stage.FORKED,
            ForkedError,
            "this process was forked from 4711, which has the emitter; use ipem.worker()",
        ),
    ],
)
def test_the_error_of_a_stage_says_which_process_and_why(node, stage, error, text):
    node.stage = stage
    found = node.stage_error()
    assert (type(found), str(found)) == (error, text.format(f"{process_name()} (4711)"))


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("unwinds", [False, True])
@pytest.mark.parametrize("listens", [False, True])
def test_who_may_send_is_not_refused_and_all_others_are(node, stage, listens, unwinds):
    node.stage = stage
    node.sends_while_stopping = unwinds
    if listens:
        node.dispatcher.enter()
    try:
        may = node.may_send()
    finally:
        if listens:
            node.dispatcher.leave()
    assert may is (stage is Stage.OPEN or (stage is Stage.STOPPING and (listens or unwinds)))
    if stage is not Stage.OPEN:  # in which nothing is checked
        try:
            node.check_stage(listens)
        except (NotStarted, Closed, ForkedError):
            assert not may
        else:
            assert may


def test_the_stage_is_that_of_the_state_also_after_a_change_that_cannot_be(node):
    for event, stage in [(Event.START, Stage.NEW), (Event.OPENED, Stage.OPEN), (Event.STOP, Stage.STOPPING)]:
        node.change(event)
        assert node.stage is stage
    with pytest.raises(RuntimeError, match="ENDED cannot happen"):
        node.change(Event.ENDED)
    assert (node.state.state, node.stage) == (State.STOPPING, Stage.STOPPING)


def test_a_change_that_a_signal_handler_interrupts_leaves_the_stage_of_its_state(node):
    class Interrupted(type(node.state)):
        def change(self, event):
            super().change(event)
            raise KeyboardInterrupt

    node.state = Interrupted()
    for event in (Event.START, Event.OPENED):
        with pytest.raises(KeyboardInterrupt):
            node.change(event)
    assert (node.state.state, node.stage) == (State.STARTING, Stage.OPEN)


# After os.fork()


def test_a_fork_that_was_made_while_another_thread_held_the_state_lock_has_one_that_is_free(node):
    held, go = threading.Event(), threading.Event()
    before = node.lock

    def hold():
        with before:
            held.set()
            assert go.wait(CEILING)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(CEILING)
    ran = []
    node.forget_lock_owner()
    with node.lock:
        assert node.inside()
        node.defer(ran.append, 1)
        assert node.deferred, "what a frame looks at is of the lock that is there"
    assert (ran, node.deferred) == ([1], {})
    go.set()
    thread.join(CEILING)


def test_a_fork_knows_only_of_its_own_thread_that_it_runs_the_listeners_of_error(node):
    me = threading.get_ident()
    node.telling_errors |= {me, -5}
    node.forget_lock_owner()
    assert node.telling_errors == {me}


def test_what_fails_after_a_fork_is_reported_by_the_new_lock_as_well(places):
    place = places("4711").hear_errors()
    place.node.forget_lock_owner()
    error = Closed("late")

    def fails():
        raise error

    with place.node.lock:
        place.node.defer(fails)
    assert place.next_error() is error
