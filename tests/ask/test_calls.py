"""What is refused at the call of a request, and what ends one that waits."""

from __future__ import annotations

import threading

import pytest
from places import CEILING, in_thread

from ipevents._ask.calls import ask, ask_async
from ipevents._ask.target import Target
from ipevents._core.messages import ANSWER, CANCEL
from ipevents._core.requests import VALUE
from ipevents._core.state import Stage
from ipevents._exceptions import (
    Closed,
    InvalidEvent,
    MessageTooLarge,
    NotStarted,
    RequestTimeout,
    ReservedEvent,
    Unpicklable,
    WouldDeadlock,
)


@pytest.fixture
def asked(places, raw):
    place = places("top")
    return place, raw(place)


@pytest.mark.parametrize("event", ["", None, 1, "x" * 257])
def test_what_is_no_event_is_refused(asked, event):
    place, _ = asked
    for call in (place.ask, place.ask_async):
        with pytest.raises(InvalidEvent):
            call(["raw"], event)


@pytest.mark.parametrize("event", ["online", "offline", "ready", "parent", "error"])
def test_the_librarys_own_events_are_not_asked_for(asked, event):
    place, _ = asked
    for call in (place.ask, place.ask_async):
        with pytest.raises(ReservedEvent):
            call(["raw"], event)


def test_what_cannot_be_pickled_is_refused(asked):
    place, _ = asked
    for call in (place.ask, place.ask_async):
        with pytest.raises(Unpicklable):
            call(["raw"], "x", threading.Lock())


@pytest.mark.parametrize(("stage", "error"), [(Stage.NEW, NotStarted), (Stage.CLOSED, Closed)])
def test_it_has_to_be_started_and_not_stopped(asked, monkeypatch, stage, error):
    place, _ = asked
    monkeypatch.setattr(place.node, "stage", stage)
    for call in (place.ask, place.ask_async):
        with pytest.raises(error):
            call(["raw"], "x")
    monkeypatch.undo()
    assert place.asks.stats()["requests"] == 0


def test_what_is_larger_than_the_other_side_takes_is_refused_and_leaves_nothing(places, raw):
    place = places("top")
    child = raw(place, limit=10_000)
    with pytest.raises(MessageTooLarge):
        place.ask(["raw"], "x", "x" * 20_000)
    with pytest.raises(MessageTooLarge):
        place.ask_async(["raw"], "x", "x" * 20_000)
    assert place.asks.stats()["open"] == 0
    assert place.asks.requests.count(child.link) == 0


def test_no_question_waits_in_a_thread_of_the_library(asked):
    place, child = asked
    caught = []
    pending = place.ask_async(["raw"], "x")

    def callback(done):
        try:
            place.ask(["raw"], "x")
        except WouldDeadlock as exc:
            caught.append(exc)

    pending.add_done_callback(callback)
    child.send((ANSWER, ("raw",), "x", None, [(child.next_payload()[1][0], VALUE, 1)]))
    pending.result(CEILING)
    following = place.ask_async(["raw"], "x")  # the reader goes on behind the callback
    child.send((ANSWER, ("raw",), "x", None, [(child.next_payload()[1][0], VALUE, 1)]))
    following.result(CEILING)
    assert len(caught) == 1
    assert place.asks.stats()["requests"] == 2


def test_a_question_whose_time_is_over_is_a_timeout_and_the_other_side_is_told(asked):
    place, child = asked
    with pytest.raises(RequestTimeout) as caught:
        place.ask(["raw"], "x", timeout=0.01)
    assert (caught.value.pid, caught.value.seconds) == ("raw", 0.01)
    number = child.next_payload()[1][0]
    child.wait_for((CANCEL, (number,)))
    assert place.asks.stats()["open"] == 0


def test_an_interrupted_question_is_given_up(asked, monkeypatch):
    place, child = asked

    def wait(reply, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr("ipevents._ask.reply.Reply.wait", wait)
    with pytest.raises(KeyboardInterrupt):
        place.ask(["raw"], "x")
    number = child.next_payload()[1][0]
    child.wait_for((CANCEL, (number,)))
    assert place.asks.stats()["open"] == 0


def test_a_stop_ends_a_question_that_waits(asked):
    place, child = asked
    result = in_thread(place.ask, ["raw"], "x")
    child.next_payload()
    place.asks.end_all()
    assert type(result()) is Closed


class Restarting:
    """As much of a child over all its restarts as a request needs. Its next process is never there."""

    pid, name, handle = "raw", "worker", None

    def __init__(self, link, *, alive):
        self.link = link
        self.alive = alive
        self.coming = True

    def next_outbox(self):
        return self.link.outbox

    def check(self, event):
        pass


def test_a_child_is_asked_by_its_link_and_named_in_the_answer(asked):
    place, child = asked
    target = Target(child=Restarting(child.link, alive=True))
    pending = ask_async(place.asks, target, "x", (), {}, None)
    assert (pending.pid, pending.name) == ("raw", "worker")
    child.send((ANSWER, ("raw",), "x", None, [(child.next_payload()[1][0], VALUE, 1)]))
    assert pending.result(CEILING) == 1


def test_keywords_of_any_name_are_those_of_the_function(pair):
    parent, child = pair
    child.answer("x", lambda message, **kwargs: kwargs)
    kwargs = {"event": 1, "target": 2, "self": 3, "route": 4, "args": 5}
    assert ask(parent.asks, Target(route=("child",)), "x", (), kwargs, None) == kwargs
