"""The answering side: which requests are carried out, by whom, and what becomes of the others."""

from __future__ import annotations

import queue
import random
import threading
import time

import pytest
from asked import answers, request, settled
from balance import imbalances
from places import CEILING, Raw, in_thread, join, queued, settle
from scripts import wait_until

from ipevents._ask import answering as module
from ipevents._ask import claims, job
from ipevents._core.messages import (
    ANSWER,
    ANSWERS,
    CANCEL,
    ONLINE,
    PARENT,
    REQUEST,
    REQUEST_ALL,
    REQUEST_ANY,
    SEND_TO,
    TAKE_BACK,
    TO_CHILDS,
)
from ipevents._core.page_layout import DISPATCHER
from ipevents._core.requests import CANCELLED, LOST, NO_ANSWERER, OVERDUE, REFUSED, SPLIT, VALUE
from ipevents._exceptions import AnswererLost, ProtocolError, RequestError
from ipevents._node.snapshot import snapshot
from ipevents._platform.threads import Deadline

FIRST = 1 << 61
LAST = (1 << 63) - 1


class Busy:
    """An answering function that waits until it is let go."""

    def __init__(self):
        self.running = queue.Queue()
        self._may_end = threading.Semaphore(0)

    def __call__(self, message, value=None):
        self.running.put(value)
        assert self._may_end.acquire(timeout=CEILING)
        return value

    def next(self):
        return self.running.get(timeout=CEILING)

    def let_go(self, count=1):
        self._may_end.release(count)


@pytest.fixture
def busy():
    made = Busy()
    yield made
    made.let_go(1000)


# The functions


def test_one_function_answers_an_event(places):
    place = places("top").answer("x", lambda message: 1)
    with pytest.raises(ValueError, match="'x' are answered here already"):
        place.answer("x", lambda message: 2)
    assert place.ask(["top"], "x") == 1
    assert (place.asks.answering.events(), place.asks.answering.answers("x")) == ([("x", 1)], True)
    assert place.asks.answering.remove("x") is True
    assert place.asks.answering.remove("x") is False
    place.answer("x", lambda message: 3)
    assert place.ask(["top"], "x") == 3


def test_the_parent_is_told_how_many_answer_while_it_may_know_of_this_process(places):
    place = places("child")
    place.node.announced = True
    parent = place.make_parent("parent")
    place.answer("x", lambda message: 1)
    assert queued(place, parent) == [(ANSWERS, "x", 1, 1)]
    with place.node.lock:
        parent.outbox.clear()
    place.asks.answering.remove("x")
    assert queued(place, parent) == [(ANSWERS, "x", 0, 0)]


def test_what_was_answered_before_it_was_announced_is_told_with_it(places):
    parent, child = places("parent"), places("child")
    child.answer("x", lambda message: 1)
    join(parent, child)
    settle(parent, child)
    assert parent.node.router.answerers_below("x") == 1
    assert child.node.router.answerers_below("x") == 0


# One after the other


def test_requests_of_a_frame_are_answered_in_their_order(asker):
    place, child = asker
    place.answer("x", lambda message, value: value * 2)
    child.send(request(*[(FIRST + number, 0, number) for number in range(200)]))
    assert answers(child, 200) == [(FIRST + number, VALUE, (number * 2,)) for number in range(200)]


def test_requests_of_several_events_in_one_record_are_answered_in_their_order(asker):
    place, child = asker
    order = []
    place.answer("x", lambda message: order.append("x"))
    place.answer("y", lambda message: order.append("y"))
    child.send((REQUEST, ("raw",), ["x", "y", "x"], None, [(1, 0), (2, 0), (3, 0)]))
    assert [number for number, _, _ in answers(child, 3)] == [1, 2, 3]
    assert order == ["x", "y", "x"]


def test_a_record_with_a_name_too_few_ends_the_link(asker):
    place, child = asker
    child.send((REQUEST, ("raw",), ["x", "y"], None, [(1, 0)]))
    assert type(place.next_closed()[1]) is ProtocolError


def test_requests_and_events_are_taken_in_their_order(asker):
    place, child = asker
    order = []
    place.on("e", lambda message: order.append("e"))
    place.answer("x", lambda message: order.append("x"))
    child.send(
        (1, ("raw",), "e", None, [()]), request((1, 0)), (1, ("raw",), "e", None, [()]), request((2, 0))
    )
    answers(child, 2)
    assert order == ["e", "x", "e", "x"]


def test_an_answer_to_a_slow_request_leaves_before_the_next_is_begun(asker):
    place, child = asker
    wait = threading.Event()

    def function(message, is_first):
        if is_first:
            until = time.monotonic() + 2 * module.SHORT_SECONDS
            while time.monotonic() < until:
                pass
        else:
            unwritten.extend(place.node.outgoing.dirty)
            assert wait.wait(CEILING)

    unwritten = []
    place.answer("x", function)
    child.send(request((1, 0, True), (2, 0, False)))
    assert answers(child, 1)[0][:2] == (1, VALUE)
    wait.set()
    assert answers(child, 1)[0][:2] == (2, VALUE)
    assert unwritten == []


@pytest.mark.parametrize("threads", [0, 1])
def test_an_exit_ends_the_process_and_is_no_answer(asker, threads):
    place, child = asker
    ended = threading.Event()

    def function(message):
        raise SystemExit(3)

    on_exit = place.exits
    place.node.dispatcher._on_exit = lambda exc: (on_exit.append(exc), ended.set())
    place.answer("x", function, threads)
    child.send(request((1, 0)))
    assert ended.wait(CEILING)
    assert [exc.code for exc in place.exits] == [3]


# Nobody answers


def test_a_process_without_a_function_says_so_and_whether_it_listens(asker):
    place, child = asker
    place.listen("heard")
    child.send(request((1, 0)), request((2, 0), event="heard"))
    assert answers(child, 2) == [
        (1, NO_ANSWERER, (f"{place.node.place()} does not answer 'x'",)),
        (2, NO_ANSWERER, (f"{place.node.place()} only listens to 'heard'",)),
    ]
    assert place.heard.empty()


def test_after_unanswer_what_waits_for_a_thread_has_no_answerer_and_what_runs_goes_on(asker, busy):
    place, child = asker
    place.answer("x", busy, threads=1)
    child.send(request((1, 0, "first"), (2, 0, "second"), (3, 0, "third")))
    assert busy.next() == "first"
    settled(place, child)
    place.asks.answering.remove("x")
    assert [each[:2] for each in answers(child, 2)] == [(2, NO_ANSWERER), (3, NO_ANSWERER)]
    busy.let_go()
    assert answers(child, 1) == [(1, VALUE, ("first",))]
    assert place.asks.answering._queued == 0


# Threads


def test_with_threads_answers_overtake_each_other(asker, busy):
    place, child = asker
    place.answer("slow", busy, threads=1)
    place.answer("fast", lambda message: "fast")
    child.send(request((1, 0, "slow"), event="slow"), request((2, 0), event="fast"))
    assert answers(child, 1) == [(2, VALUE, ("fast",))]
    busy.let_go()
    assert answers(child, 1) == [(1, VALUE, ("slow",))]


def test_an_answering_function_with_threads_may_ask(pair):
    parent, child = pair
    parent.answer("inner", lambda message: "inner")
    child.answer("outer", lambda message: ("outer", child.ask(["parent"], "inner")), threads=1)
    assert parent.ask(["child"], "outer") == ("outer", "inner")


def test_what_is_too_much_for_the_threads_is_refused(asker, busy, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    place, child = asker
    place.answer("x", busy, threads=1)
    child.send(request((1, 0)))
    busy.next()
    child.send(request((2, 0), (3, 0), (4, 0)))
    assert answers(child, 1) == [(4, REFUSED, ("too much waits for the threads of 'x'",))]
    busy.let_go(3)
    assert [each[0] for each in answers(child, 3)] == [1, 2, 3]


def test_too_many_bytes_for_the_threads_are_refused(asker, busy, monkeypatch):
    monkeypatch.setattr(module, "QUEUED_BYTES", 1000)
    place, child = asker
    place.answer("x", busy, threads=1)
    child.send(request((1, 0)))
    busy.next()
    child.send(request((2, 0, "x" * 900), (3, 0, "x" * 900)))
    assert [each[:2] for each in answers(child, 1)] == [(3, REFUSED)]
    busy.let_go(3)
    answers(child, 2)
    assert place.asks.answering._queued == 0


def test_where_no_thread_can_be_started_the_request_is_refused(asker, monkeypatch):
    place, child = asker

    def start(thread):
        raise RuntimeError("can't start new thread")

    place.answer("x", lambda message: None, threads=1)
    with monkeypatch.context() as patched:
        patched.setattr("ipevents._ask.lanes.threading.Thread.start", start)
        child.send(request((1, 0)))
        assert answers(child, 1) == [(1, REFUSED, ("no thread can be started for it",))]
    assert place.asks.answering._queued == 0


def test_at_a_stop_what_has_not_begun_is_lost_and_certainly_not_begun(asker, busy):
    place, child = asker
    place.answer("x", busy, threads=1)
    child.send(request((1, 0, "first"), (2, 0, "second")))
    busy.next()
    settled(place, child)
    place.asks.answering.begin_stop()
    place.asks.answering.finish(Deadline(0.0))
    assert answers(child, 1) == [(2, LOST, ("top", "", None, False))]


def test_in_another_life_the_functions_answer_with_new_threads(places):
    place = places("top").answer("x", lambda message: threading.current_thread().name, threads=1)
    assert place.ask(["top"], "x") == "ipevents-answers-x-1"
    place.asks.answering.begin_stop()
    place.asks.answering.finish(Deadline(CEILING))
    with pytest.raises(AnswererLost):
        place.ask(["top"], "x")
    with place.node.lock:
        place.asks.renew()
    assert place.ask(["top"], "x") == "ipevents-answers-x-1"


# Deadlines


@pytest.mark.parametrize("deadline", [1, LAST, -LAST, -(1 << 63)])
@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_overdue_is_not_begun(asker, deadline, threads):
    place, child = asker
    place.answer("x", lambda message: "done", threads)
    child.send(request((1, deadline)))
    assert answers(child, 1) == [(1, OVERDUE, ()) if deadline == 1 else (1, VALUE, ("done",))]


# Cancelled requests


def test_what_is_cancelled_before_it_comes_is_never_begun(asker):
    place, child = asker
    begun = []
    place.answer("x", lambda message, value: begun.append(value))
    child.send((CANCEL, (2,)), request((1, 0, 1), (2, 0, 2), (3, 0, 3)))
    assert [each[:2] for each in answers(child, 3)] == [(1, VALUE), (2, CANCELLED), (3, VALUE)]
    assert begun == [1, 3]
    assert place.asks.answering._early == {child.link: {}}


def test_what_waits_for_a_thread_is_never_begun_after_it_was_cancelled(asker, busy):
    place, child = asker
    place.answer("x", busy, threads=1)
    child.send(request((1, 0, "first"), (2, 0, "second"), (3, 0, "third")))
    assert busy.next() == "first"
    child.send((CANCEL, (2,)))
    assert answers(child, 1) == [(2, CANCELLED, ())]
    busy.let_go(2)
    assert busy.next() == "third"
    assert [each[0] for each in answers(child, 2)] == [1, 3]


def test_what_runs_sees_that_it_was_cancelled_and_only_that(asker):
    place, child = asker
    jobs = queue.Queue()
    ends = threading.Event()

    def function(message):
        jobs.put(job.running_here())
        assert ends.wait(CEILING)

    place.answer("x", function, threads=2)
    child.send(request((1, 0), (2, 0)))
    running = {job.number: job for job in (jobs.get(timeout=CEILING), jobs.get(timeout=CEILING))}
    child.send((CANCEL, (1,)))
    settled(place, child)
    assert (running[1].is_cancelled, running[2].is_cancelled) == (True, False)
    ends.set()
    assert {each[:2] for each in answers(child, 2)} == {(1, VALUE), (2, VALUE)}


def test_a_cancel_at_the_moment_at_which_it_is_begun_is_seen(asker, monkeypatch):
    place, child = asker
    answering = place.asks.answering
    is_dropped = answering._is_dropped

    def is_dropped_and_then_cancelled(job):
        dropped = is_dropped(job)
        place.asks.cancelled(job.link, (job.number,))
        return dropped

    monkeypatch.setattr(answering, "_is_dropped", is_dropped_and_then_cancelled)
    place.answer("x", lambda message: answering.is_cancelled(), threads=1)
    child.send(request((1, 0)))
    assert answers(child, 1) == [(1, VALUE, (True,))]


def test_one_asker_does_not_cancel_the_request_of_another(places, raw):
    place = places("top")
    one, other = raw(place, "one"), raw(place, "other")
    place.answer("x", lambda message: "done")
    other.send((CANCEL, (1,)))
    settled(place, other)
    one.send(request((1, 0), pid="one"))
    assert answers(one, 1) == [(1, VALUE, ("done",))]


def test_no_more_cancelled_requests_are_remembered_than_that(asker, monkeypatch):
    monkeypatch.setattr(module, "MAX_EARLY", 3)
    place, child = asker
    place.answer("x", lambda message: "done")
    child.send((CANCEL, (1, 2, 3, 4)), request((1, 0), (2, 0)))
    assert [each[:2] for each in answers(child, 2)] == [(1, VALUE), (2, CANCELLED)]


def test_what_has_not_begun_of_an_asker_that_is_gone_never_does(places, raw, busy):
    place = places("top")
    gone, stays = raw(place, "gone"), raw(place, "stays")
    place.answer("x", busy, threads=1)
    gone.send(request((1, 0, "runs"), (2, 0, "waits"), pid="gone"))
    assert busy.next() == "runs"
    settled(place, gone)
    stays.send(request((3, 0, "other"), pid="stays"))
    settled(place, stays)
    (running,) = job._running.values()
    gone.socket.close()
    place.next_closed()
    assert running.is_cancelled
    busy.let_go(2)
    assert busy.next() == "other"
    assert answers(stays, 1) == [(3, VALUE, ("other",))]
    assert place.asks.answering._queued == 0


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("value", [1, b"x" * 10_000, [1], module])  # a module cannot be sent
def test_an_answer_to_an_asker_that_is_gone_is_not_for_the_next_at_its_link(asker, threads, value):
    place, child = asker
    seen = []

    def function(message, is_first):
        if not is_first:
            return "next"
        with place.node.lock:
            place.asks.link_gone(child.link)
        seen.append(place.asks.answering.is_cancelled())
        return value

    place.answer("x", function, threads)
    child.send(request((1, 0, True)), request((1, 0, False)))
    assert answers(child, 1) == [(1, VALUE, ("next",))]
    assert seen == [True]
    assert place.closed.empty()


@pytest.mark.parametrize("threads", [0, 1])
def test_an_error_in_place_of_an_answer_is_not_for_the_next_at_the_link_either(asker, monkeypatch, threads):
    place, child = asker

    def function(message, is_first):
        if is_first:
            with place.node.lock:
                place.asks.link_gone(child.link)
            monkeypatch.setattr(child.link, "limit", 2000)  # the answer is larger than that
            monkeypatch.setattr(child.link, "is_limited", True)
            return b"x" * 10_000
        return "next"

    place.answer("x", function, threads)
    child.send(request((1, 0, True)), request((1, 0, False)))
    assert answers(child, 1) == [(1, VALUE, ("next",))]


def test_what_is_still_read_of_a_process_that_has_ended_is_not_begun(asker):
    place, child = asker
    begun = []
    place.answer("x", lambda message: begun.append(1))
    with place.node.lock:
        place.asks.asker_ended(child.link)
    child.send(request((1, 0)))
    settled(place, child)
    assert begun == []


# Answers that do not fit


def test_an_answer_that_is_larger_than_its_asker_takes_becomes_an_error(places):
    parent, child = places("parent"), places("child")
    join(parent, child, limit=100_000)
    child.answer("large", lambda message, size: b"x" * size)
    assert len(parent.ask(["child"], "large", 50_000)) == 50_000
    with pytest.raises(RequestError, match=r"the answer has \d+ bytes, .* takes at most 100000"):
        parent.ask(["child"], "large", 200_000)
    assert len(parent.ask(["child"], "large", 50_000)) == 50_000


@pytest.mark.parametrize("size", [0, 100, 10_000, 10 << 20])
def test_values_of_any_size_arrive(pair, size):
    parent, child = pair
    child.answer("echo", lambda message, value: value)
    for value in (bytes(size), "x" * size, bytearray(size)):
        assert parent.ask(["child"], "echo", value) == value


# Requests to all, where they end


def test_a_process_that_does_not_answer_stands_for_one_less(asker):
    _, child = asker
    child.send(request((1, 0), kind=REQUEST_ALL))
    assert answers(child, 1) == [(1, SPLIT, (-1,))]


def test_a_process_that_answers_tells_into_how_many_it_was_split_before_it_passes_it_on(places, raw):
    place = places("top")
    child, other = raw(place, "child"), raw(place, "other")
    with place.node.lock:
        place.node.router.online(other.link, ("other",))
    other.send((ANSWERS, "x", 1, 1))
    settled(place, other)
    place.answer("x", lambda message: "top")
    child.send(request((1, 0), (2, 0), kind=REQUEST_ALL, pid="child"))
    assert answers(child, 4) == [
        (1, SPLIT, (1,)),
        (2, SPLIT, (1,)),
        (1, VALUE, ("top",)),
        (2, VALUE, ("top",)),
    ]
    assert other.next_request() == (REQUEST_ALL, "x", None, [(1, 0), (2, 0)])


@pytest.fixture
def split(places, raw, monkeypatch):
    """A place, the child that asks, another one that answers "x"; and what sets what follows the count."""
    place = places("top")
    child, other = raw(place, "child"), raw(place, "other")
    other.send((ANSWERS, "x", 1, 1))
    settled(place, other)
    with place.node.lock:
        place.node.router.online(other.link, ("other",))
    counts_here = place.asks.answering.counts_here

    def follow(call):
        def counts(*args):
            counted = counts_here(*args)
            call()
            return counted

        monkeypatch.setattr(place.asks.answering, "counts_here", counts)

    return place, child, other, follow


def test_one_that_began_to_answer_after_the_asker_was_told_is_not_in_the_count(split):
    place, child, other, follow = split
    follow(lambda: place.answer("x", lambda message: "too late"))
    child.send(request((1, 0), kind=REQUEST_ALL, pid="child"))
    other.next_request()
    other.send((ANSWER, ("other",), "x", None, [(1, VALUE, "other")]))
    assert answers(child, 1) == [(1, VALUE, ("other",))]


def test_one_that_ceased_to_answer_after_the_asker_was_told_says_so(split):
    place, child, _, follow = split
    place.answer("x", lambda message: "too early")
    follow(lambda: place.asks.answering.remove("x"))
    child.send(request((1, 0), kind=REQUEST_ALL, pid="child"))
    assert [each[:2] for each in answers(child, 2)] == [(1, SPLIT), (1, NO_ANSWERER)]


def test_all_requests_to_all_that_were_held_are_answered(places, raw):
    place = places("middle")
    top = Raw(place, "top", above=True)
    leaf = raw(place, "leaf")  # not online, so it gets them too
    place.answer("x", lambda message, value: value)
    place.answer("y", lambda message, value: value)
    place.node.incoming.holding = True
    first = request((1, 0, "a"), (2, 0, "b"), kind=REQUEST_ALL, pid="top")
    top.send(first, request((3, 0, "c"), kind=REQUEST_ALL, event="y", pid="top"))
    try:
        assert answers(top, 3) == [(1, SPLIT, (1,)), (2, SPLIT, (1,)), (3, SPLIT, (1,))]
        place.node.announced = True
        top.send((20, "top"))  # the answer to its online
        assert answers(top, 3) == [(1, VALUE, ("a",)), (2, VALUE, ("b",)), (3, VALUE, ("c",))]
        assert leaf.next_request()[:2] == (REQUEST_ALL, "x")
    finally:
        top.socket.close()
        place.next_closed()


# Requests to any that are taken back


@pytest.fixture
def giver(places):
    """A place, and its parent, which is only a socket, and which gives it requests to any."""
    place = places("child")
    parent = Raw(place, "parent", above=True)
    yield place, parent
    parent.socket.close()
    parent._ours.close()


def any_request(*payloads, event="x"):
    return request(*payloads, kind=REQUEST_ANY, event=event, pid="parent")


def takes_back(place, parent, *numbers, event="x"):
    """As a record of the parent that overtakes the requests, and is handled by another thread."""
    place.asks.take_back(parent.link, event, numbers)


def all_answers(place, parent):
    """All answers that have come until now: number and status."""
    place.send_to([parent.pid], "fence")
    found = []
    while True:
        for record in parent.next_records():
            if record[0] == ANSWER:
                found += [payload[:2] for payload in record[4]]
            elif record[0] == SEND_TO:
                return sorted(found)


def came(place, parent):
    """Wait until all that the parent has sent is handled."""
    heard = threading.Event()
    place.on("came", lambda message: heard.set())
    parent.send((TO_CHILDS, ("parent",), "came", None, [()]))
    assert heard.wait(CEILING)


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_taken_back_before_it_comes_is_never_begun(giver, threads):
    place, parent = giver
    begun = []
    place.answer("x", lambda message, value: begun.append(value), threads)
    parent.send((TAKE_BACK, "x", (2, 4)))
    parent.send(any_request((1, 0, 1), (2, 0, 2), (3, 0, 3)), any_request((4, 0, 4)), any_request((5, 0, 5)))
    assert sorted(each[:2] for each in answers(parent, 5)) == [
        (1, VALUE),
        (2, CANCELLED),
        (3, VALUE),
        (4, CANCELLED),
        (5, VALUE),
    ]
    assert (all_answers(place, parent), begun) == ([], [1, 3, 5])
    assert place.asks.answering.claims._taken == {}


def test_what_waits_in_its_frame_is_given_back_and_what_runs_is_not(giver, busy):
    place, parent = giver
    place.answer("x", busy)
    parent.send(any_request((1, 0, 1), (2, 0, 2), (3, 0, 3)))
    assert busy.next() == 1
    takes_back(place, parent, 3, 2, 1)
    busy.let_go()
    came(place, parent)
    assert all_answers(place, parent) == [(1, VALUE), (2, CANCELLED), (3, CANCELLED)]
    assert busy.running.empty()
    assert place.asks.answering.claims._taken == {}


def test_what_waits_for_a_thread_is_given_back_and_what_runs_is_not(giver, busy):
    place, parent = giver
    place.answer("x", busy, threads=1)
    parent.send(any_request((1, 0, 1), (2, 0, 2), (3, 0, 3)))
    assert busy.next() == 1
    came(place, parent)
    parent.send((TAKE_BACK, "x", (1, 3)))
    assert answers(parent, 1) == [(3, CANCELLED, ())]
    busy.let_go(2)
    assert busy.next() == 2
    assert [each[:2] for each in answers(parent, 2)] == [(1, VALUE), (2, VALUE)]
    assert all_answers(place, parent) == []
    assert place.asks.answering.claims._waiting == {}
    wait_until(lambda: place.asks.answering._queued == 0)  # once the thread has found what was taken back


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_done_is_not_given_back(giver, threads):
    place, parent = giver
    place.answer("x", lambda message: "done", threads)
    parent.send(any_request((1, 0), (2, 0)))
    assert {each[:2] for each in answers(parent, 2)} == {(1, VALUE), (2, VALUE)}
    parent.send((TAKE_BACK, "x", (1, 2)))
    came(place, parent)
    assert all_answers(place, parent) == []


def fails_to_answer(place, parent):
    """Nobody answers it here."""
    parent.send(any_request((1, 0)))
    assert answers(parent, 1)[0][:2] == (1, NO_ANSWERER)


def loses_it(place, parent):
    """There is no memory for it."""
    place.asks.lose(parent.link, any_request((1, 0)))
    assert answers(parent, 1)[0][:2] == (1, REFUSED)


def refuses_it(place, parent):
    """Too much waits for its threads."""
    place.answer("x", lambda message: "done", threads=1)
    place.asks.answering._queued = module.QUEUED_BYTES
    parent.send(any_request((1, 0)))
    assert answers(parent, 1)[0][:2] == (1, REFUSED)
    place.asks.answering._queued = 0


def stops_answering(place, parent):
    """It was done by a thread, and nothing is answered any more."""
    place.answer("x", lambda message: "done", threads=1)
    parent.send(any_request((1, 0)))
    assert answers(parent, 1)[0][:2] == (1, VALUE)
    place.asks.answering.remove("x")


def answers_otherwise(place, parent):
    """It was done by a thread, and others are answered without one."""
    stops_answering(place, parent)
    place.answer("x", lambda message: "done")


@pytest.mark.parametrize("way", [fails_to_answer, loses_it, refuses_it, stops_answering, answers_otherwise])
def test_what_has_its_answer_already_gets_no_second_one(giver, way):
    """A second answer would end the link at the other end."""
    place, parent = giver
    way(place, parent)
    takes_back(place, parent, 1)
    assert all_answers(place, parent) == []
    assert place.asks.answering.claims._taken == {}


def test_what_was_taken_back_before_there_was_no_memory_for_it_gets_no_second_answer(giver):
    place, parent = giver
    takes_back(place, parent, 1)
    assert all_answers(place, parent) == [(1, CANCELLED)]
    place.asks.lose(parent.link, any_request((1, 0)))
    assert all_answers(place, parent) == []


def test_what_waits_for_threads_that_are_closed_just_then_is_answered_once(giver, monkeypatch):
    place, parent = giver
    place.answer("x", lambda message: "done", threads=1)
    lanes = place.asks.answering._answerers["x"].lanes

    def put(job):
        takes_back(place, parent, 1)
        return False, []

    monkeypatch.setattr(lanes, "put", put)
    parent.send(any_request((1, 0)))
    came(place, parent)
    assert all_answers(place, parent) == [(1, CANCELLED)]


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_held_until_the_online_of_this_process_can_be_given_back(giver, threads):
    place, parent = giver
    begun = []
    place.answer("x", lambda message, value: begun.append(value), threads)
    place.node.incoming.holding = True
    parent.send(any_request((1, 0, 1), (2, 0, 2)))
    parent.send((TAKE_BACK, "x", (2,)))
    assert answers(parent, 1) == [(2, CANCELLED, ())]
    place.node.announced = True
    parent.send((PARENT, "parent"))
    assert answers(parent, 1)[0][:2] == (1, VALUE)
    assert (all_answers(place, parent), begun) == ([], [1])


def test_what_was_taken_back_and_is_cancelled_is_answered_once(giver, busy):
    place, parent = giver
    place.answer("x", busy, threads=1)
    parent.send(any_request((1, 0, 1), (2, 0, 2), (3, 0, 3)))
    busy.next()
    came(place, parent)
    parent.send((TAKE_BACK, "x", (2, 9)), (CANCEL, (2, 3, 9)), (TAKE_BACK, "x", (3,)))
    came(place, parent)
    parent.send(any_request((9, 0, 9)))
    came(place, parent)
    assert all_answers(place, parent) == [(2, CANCELLED), (3, CANCELLED), (9, CANCELLED)]
    busy.let_go()
    assert answers(parent, 1)[0][:2] == (1, VALUE)


def test_no_more_that_has_not_come_is_remembered_than_that(giver, monkeypatch):
    monkeypatch.setattr(claims, "MAX_TAKEN", 2)
    place, parent = giver
    place.answer("x", lambda message: "done")
    takes_back(place, parent, 1, 2, 3)
    parent.send(any_request((1, 0), (2, 0), (3, 0)))
    came(place, parent)
    assert all_answers(place, parent) == [(1, CANCELLED), (2, CANCELLED), (3, VALUE)]


def test_with_the_link_all_that_is_known_of_its_numbers_is_forgotten(giver):
    place, parent = giver
    place.answer("x", lambda message: "done")
    parent.send(any_request((1, 0)))
    came(place, parent)
    takes_back(place, parent, 1, 2)
    answering = place.asks.answering
    assert (answering.claims._taken, answering.claims._come) == ({parent.link: {2}}, {parent.link: 1})
    with place.node.lock:
        place.asks.link_gone(parent.link)
    assert (answering.claims._taken, answering.claims._come) == ({}, {})


def test_the_books_say_what_became_of_it(giver):
    place, parent = giver
    place.answer("x", lambda message: "done")
    place.answer("y", lambda message: "done", threads=1)
    for event, first in (("x", 1), ("y", 4)):
        takes_back(place, parent, first + 1, event=event)
        parent.send(any_request((first, 0), (first + 1, 0), (first + 2, 0), event=event))
    came(place, parent)
    answers(parent, 6)
    with place.node.lock:
        parent.link.wait_handled(Deadline(CEILING))
    assert imbalances(snapshot(place.node, 0, lambda: 0)) == []


class Page:
    """What a child shares with its parent: here the numbers that were begun in each lane, in their order."""

    def __init__(self):
        self.begun = []

    def lane_of(self, event):
        return event

    def forget(self, event):
        pass

    def begin(self, lane, number):
        self.begun.append((lane, number))


def test_what_was_taken_back_in_its_turn_is_not_told_to_have_begun(giver):
    place, parent = giver
    page = Page()
    place.asks.answering._page = lambda: page
    place.answer("x", lambda message: "done")
    takes_back(place, parent, 2)
    parent.send(any_request((1, 0), (2, 0), (3, 0)))
    came(place, parent)
    assert page.begun == [(DISPATCHER, 1), (DISPATCHER, 3)]


@pytest.mark.parametrize("how", ["nothing", "in turn", "threads"])
def test_what_goes_on_to_another_process_is_told_to_have_begun(giver, raw, how):
    place, parent = giver
    page = Page()
    place.asks.answering._page = lambda: page
    if how != "nothing":
        place.answer("x", lambda message: "mine", int(how == "threads"))
    below = raw(place, "below")
    below.send((ONLINE, ("below",)), (ANSWERS, "x", 1, 2))
    settled(place, below)
    takes_back(place, parent, 2)
    parent.send(any_request((1, 0), (2, 0), (3, 0)))
    came(place, parent)
    lane = "x" if how == "threads" else DISPATCHER
    assert page.begun == [(lane, 1), (lane, 3)]


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_each_is_begun_or_given_back_and_never_both_whenever_it_is_taken(giver, threads, seed):
    place, parent = giver
    begun = queue.SimpleQueue()
    place.answer("x", lambda message, value: begun.put(value), threads)
    draw = random.Random(seed)
    numbers = list(range(1, 401))
    taken = draw.sample(numbers, 300)
    started = threading.Event()

    def take():
        assert started.wait(CEILING)
        for at in range(0, len(taken), 3):
            takes_back(place, parent, *taken[at : at + 3])

    result = in_thread(take)
    at = 0
    while at < len(numbers):
        count = draw.randrange(1, 40)
        parent.send(any_request(*[(number, 0, number) for number in numbers[at : at + count]]))
        started.set()
        at += count
    assert result() is None
    found = sorted(each[:2] for each in answers(parent, len(numbers)))
    assert [number for number, _ in found] == numbers
    given_back = {number for number, status in found if status == CANCELLED}
    assert given_back <= set(taken)
    assert sorted(begun.get() for _ in range(len(numbers) - len(given_back))) == sorted(
        set(numbers) - given_back
    )
    assert begun.empty()
    assert all_answers(place, parent) == []
    assert place.asks.answering.claims._taken == {}
    wait_until(lambda: place.asks.answering._queued == 0)  # once threads have found what was taken back
