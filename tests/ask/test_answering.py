"""The answering side: which requests are carried out, by whom, and what becomes of the others."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from asked import answers, request, settled
from places import CEILING, Raw, join, queued, settle

from ipevents._ask import answering as module
from ipevents._ask import job
from ipevents._core.messages import ANSWER, ANSWERS, CANCEL, REQUEST, REQUEST_ALL
from ipevents._core.requests import CANCELLED, LOST, NO_ANSWERER, OVERDUE, REFUSED, SPLIT, VALUE
from ipevents._exceptions import AnswererLost, ProtocolError, RequestError
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
