"""The child's end of its control channel. In real children: system/test_hangs.py."""

from __future__ import annotations

import socket
import threading

import pytest

from ipevents import Emitter
from ipevents._core.messages import PROBE, RUNS, STOP, control
from ipevents._dispatch.floor import Floor
from ipevents._lifecycle.parent_channel import LAST_STEPS_SECONDS, ParentChannel
from ipevents._processes.control_channel import ControlChannel

CEILING = 60.0  # of every wait; reached only in a deadlock

pytestmark = pytest.mark.usefixtures("all_is_given_back")


class Pair:
    """The child's end in an emitter that was not started, the parent's end, and the clock of the timers."""

    def __init__(self):
        theirs, ours = socket.socketpair()
        self.life = Emitter()._life
        self.life.node.dispatcher.floor = Floor()
        self.received = 0
        self.stops = []
        self.up = ParentChannel(self.life, theirs, lambda: self.received, self.stops.append)
        self.answers = []
        self.parent = ControlChannel(
            ours,
            lambda kind, items: self.answers.append((kind, items)),
            self.answers.append,
            is_to_parent=False,
        )

    def say(self, record):
        self.parent.put(record)
        self.parent.write()
        self.up.channel.read()
        self.parent.read()

    def fire(self):
        """Let the timers come that are due at some time; returns whether there were any."""
        calls = self.life.node.timers.take(float("inf"))
        for call in calls:
            call()
        return bool(calls)


@pytest.fixture
def pair():
    made = Pair()
    yield made
    made.up.channel.close()
    made.parent.close()


def test_the_channel_is_for_no_other_program(pair):
    assert not pair.up.channel._socket.get_inheritable()


def test_before_the_parent_has_asked_nothing_is_said(pair):
    pair.life.node.dispatcher.enter()
    pair.life.node.dispatcher.leave()
    pair.up.look()
    pair.parent.read()
    assert pair.answers == []


def test_an_answer_says_that_nothing_runs_and_then_that_a_listener_begins(pair):
    pair.say(control(PROBE, number=3, limit=1000))
    nothing = {"number": 3, "running": None, "listener": "", "text": ""}
    assert pair.answers == [(RUNS, nothing)]
    for _ in range(2):
        pair.life.node.dispatcher.enter()
        pair.life.node.dispatcher.leave()
    pair.up.look()
    pair.up.look()
    pair.parent.read()
    assert pair.answers[1:] == [(RUNS, {**nothing, "number": 0, "running": 0})]


def test_a_listener_that_runs_longer_than_the_question_says_is_told_with_the_stacks(pair):
    inside, leave = threading.Event(), threading.Event()

    def listen(message):
        inside.set()
        leave.wait(CEILING)

    emitter = Emitter()
    emitter._node.dispatcher.floor = pair.life.node.dispatcher.floor
    emitter.on("evt", listen)
    thread = threading.Thread(target=emitter.emit, args=("evt",))
    thread.start()
    assert inside.wait(CEILING)
    pair.say(control(PROBE, number=1, limit=1_000_000))
    pair.say(control(PROBE, number=2, limit=0))
    leave.set()
    thread.join(CEILING)
    (_, first), (_, second) = pair.answers
    assert (first["listener"], first["text"]) == ("", "")
    assert "listen (" in second["listener"]
    assert "in listen" in second["text"]


def test_the_end_of_the_answers_is_said(pair):
    pair.up.answers_no_more()
    pair.parent.read()
    assert pair.answers == [(RUNS, {"number": 0, "running": None, "listener": "", "text": ""})]


def test_an_announced_stop_begins_by_itself_where_nothing_goes_on(pair):
    assert not pair.life.stop_is_announced
    pair.say(control(STOP, milliseconds=100_000))
    assert pair.life.stop_is_announced
    assert pair.stops == []
    assert pair.fire()
    (seconds,) = pair.stops
    assert 90 < seconds <= 100 - LAST_STEPS_SECONDS
    assert not pair.fire()


def test_an_announced_stop_is_waited_for_while_the_link_is_read_and_there_is_time(pair):
    pair.say(control(STOP, milliseconds=100_000))
    for _ in range(5):
        pair.received += 1
        assert pair.fire()
    assert pair.stops == []
    pair.fire()
    assert len(pair.stops) == 1


def test_with_little_time_left_it_is_not_waited_for(pair):
    pair.say(control(STOP, milliseconds=1000))
    pair.received += 1
    pair.fire()
    (seconds,) = pair.stops
    assert 0.2 < seconds <= 0.25


def test_a_stop_that_has_come_over_the_link_is_left_alone(pair):
    pair.say(control(STOP, milliseconds=100_000))
    pair.life.stopping.set()
    pair.fire()
    assert pair.stops == []
