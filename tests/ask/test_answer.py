"""Answer, the future of a request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest
from places import CEILING, in_thread

from ipevents._core.messages import ANSWER, CANCEL
from ipevents._core.requests import VALUE
from ipevents._core.state import Stage
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    ForkedError,
    NoAnswerer,
    RequestTimeout,
    WouldDeadlock,
)


@pytest.fixture
def asked(places, raw):
    """A place, its child that is only a socket, an Answer to a request of it, and the number of that."""
    place = places("top")
    child = raw(place)
    answer = place.ask_async(["raw"], "x", 1)
    _, payload = child.next_payload()
    return place, child, answer, payload[0]


def respond(child, number, *args, status=VALUE):
    child.send((ANSWER, (child.pid,), "x", None, [(number, status, *args)]))


def test_it_is_a_future_of_the_standard_library(asked):
    _, child, answer, number = asked
    assert isinstance(answer, concurrent.futures.Future)
    assert (answer.done(), answer.running(), answer.cancelled()) == (False, False, False)
    assert (answer.pid, answer.name, answer.attempts) == ("raw", "", 1)
    respond(child, number, "value")
    assert answer.result(CEILING) == "value"
    assert answer.exception() is None
    assert concurrent.futures.wait([answer], 0).done == {answer}
    assert list(concurrent.futures.as_completed([answer])) == [answer]


def test_a_wait_with_a_limit_leaves_the_request_open(asked):
    _, child, answer, number = asked
    with pytest.raises(concurrent.futures.TimeoutError):
        answer.result(0)
    with pytest.raises(concurrent.futures.TimeoutError):
        answer.exception(0)
    respond(child, number, "value")
    assert answer.result(CEILING) == "value"


def test_the_end_of_the_process_is_its_exception(asked):
    _, child, answer, _ = asked
    child.socket.close()
    error = answer.exception(CEILING)
    assert (type(error), error.pid, error.begun) == (AnswererLost, "raw", None)


def test_a_stop_ends_it(asked):
    place, _, answer, _ = asked
    place.asks.end_all()
    assert type(answer.exception(0)) is Closed


def test_one_that_is_cancelled_is_done_and_the_other_side_is_told(asked):
    place, child, answer, number = asked
    called = []
    answer.add_done_callback(called.append)
    assert answer.cancel() is True
    assert (answer.cancelled(), called) == (True, [answer])
    assert answer.cancel() is True
    with pytest.raises(concurrent.futures.CancelledError):
        answer.result()
    child.wait_for((CANCEL, (number,)))
    # The late answer is dropped and counted, and the next request unaffected.
    respond(child, number, "late")
    following = place.ask_async(["raw"], "x")
    respond(child, child.next_payload()[1][0], "next")
    assert following.result(CEILING) == "next"
    assert place.asks.stats()["late"] == 1


def test_one_that_is_done_is_not_cancelled(asked):
    _, child, answer, number = asked
    respond(child, number, "value")
    answer.result(CEILING)
    assert answer.cancel() is False
    assert (answer.cancelled(), answer.running()) == (False, False)


class Page:
    """A page of a child, whose only lane has begun this request last."""

    def __init__(self, number):
        self.number = number

    def begun_last(self, event):
        return 0, self.number


def test_one_that_is_known_to_be_begun_runs_and_is_not_cancelled_but_the_other_side_is_told(asked):
    _, child, answer, number = asked
    child.link.page = Page(0)
    assert answer.running() is False
    child.link.page = Page(number)
    assert answer.running() is True
    assert answer.cancel() is False
    child.wait_for((CANCEL, (number,)))
    respond(child, number, "all the same")
    assert answer.result(CEILING) == "all the same"


def test_what_cannot_be_asked_is_an_exception_of_it_and_nothing_is_raised(places):
    place = places("top")
    called = []
    answer = place.ask_async(["nobody"], "x")
    answer.add_done_callback(called.append)
    assert called == [answer]
    assert type(answer.exception(0)) is NoAnswerer


# Waiting where nothing could come


@pytest.mark.parametrize("wait", ["result", "exception"])
def test_no_wait_in_a_listener(asked, wait):
    place, child, answer, number = asked
    caught = []

    def listener(message):
        try:
            getattr(answer, wait)(CEILING)
        except WouldDeadlock as exc:
            caught.append(exc)

    place.on("go", listener)
    place.node.events.emit("go", (), {})
    assert len(caught) == 1
    respond(child, number, "value")
    answer.result(CEILING)
    place.node.events.emit("go", (), {})  # one that is done may be read
    assert len(caught) == 1


def test_no_wait_in_a_callback(asked):
    place, child, answer, number = asked
    other = place.ask_async(["raw"], "x")
    caught = []
    answer.add_done_callback(lambda done: caught.append((done.result(), in_callback(other))))

    def in_callback(pending):
        try:
            pending.result(CEILING)
        except WouldDeadlock:
            return "refused"

    respond(child, number, "value")
    answer.result(CEILING)
    respond(child, child.next_payload()[1][0], "other")
    other.result(CEILING)  # it comes by the same reader, behind the callback
    assert caught == [("value", "refused")]


def test_no_wait_in_a_forked_process(asked, monkeypatch):
    place, _, answer, _ = asked
    monkeypatch.setattr(place.node, "stage", Stage.FORKED)
    with pytest.raises(ForkedError):
        answer.result(CEILING)


# Callbacks


def test_a_callback_runs_in_the_thread_that_brings_the_answer(asked):
    _, child, answer, number = asked
    names = []
    done = threading.Event()
    answer.add_done_callback(lambda _: (names.append(threading.current_thread().name), done.set()))
    respond(child, number, "value")
    assert done.wait(CEILING)
    assert names[0].startswith("ipevents-")


def test_a_callback_of_one_that_is_lost_runs_in_the_thread_of_notices(asked):
    place, child, answer, _ = asked
    threads = []
    done = threading.Event()
    answer.add_done_callback(lambda _: (threads.append(threading.get_ident()), done.set()))
    child.socket.close()
    assert done.wait(CEILING)
    noticed = []
    place.on("go", lambda message: noticed.append(threading.get_ident()))
    ran = threading.Event()
    place.node.events.notify(lambda: (noticed.append(threading.get_ident()), ran.set()))
    assert ran.wait(CEILING)
    assert threads == noticed


def test_a_callback_that_raises_ends_nothing(asked):
    place, child, answer, number = asked

    def broken(_):
        raise LookupError("mine")

    answer.add_done_callback(broken)
    respond(child, number, "value")
    assert answer.result(CEILING) == "value"
    following = place.ask_async(["raw"], "x")
    respond(child, child.next_payload()[1][0], "next")
    assert following.result(CEILING) == "next"


RAISED = [LookupError("mine"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.parametrize("exc", RAISED, ids=lambda exc: type(exc).__name__)
def test_whatever_a_callback_raises_keeps_no_other_from_its_turn_and_no_answer_open(asked, exc):
    place, child, answer, number = asked
    following = place.ask_async(["raw"], "x")
    other = child.next_payload()[1][0]
    called = []

    def broken(_):
        raise exc

    answer.add_done_callback(broken)
    answer.add_done_callback(called.append)
    child.send((ANSWER, ("raw",), "x", None, [(number, VALUE, 1), (other, VALUE, 2)]))
    assert (answer.result(CEILING), following.result(CEILING)) == (1, 2)
    assert called == [answer]
    assert place.closed.empty()
    assert place.exits == []


@pytest.mark.parametrize("exc", RAISED, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("end", ["lost", "stop"])
def test_what_a_callback_raises_at_an_end_keeps_no_answer_open(asked, exc, end):
    place, child, answer, _ = asked
    following = place.ask_async(["raw"], "x")
    called = threading.Event()

    def broken(_):
        raise exc

    answer.add_done_callback(broken)
    following.add_done_callback(lambda _: called.set())
    if end == "lost":
        child.socket.close()
    else:
        in_thread(place.asks.end_all)()
    assert type(answer.exception(CEILING)) is type(following.exception(CEILING))
    assert called.wait(CEILING)


# Deadlines


def test_one_whose_time_is_over_is_a_timeout_and_the_other_side_is_told(places, raw):
    place = places("top")
    child = raw(place)
    answer = place.ask_async(["raw"], "x", timeout=1e-9)
    number = child.next_payload()[1][0]
    place.look_at_deadlines()
    error = answer.exception(0)
    assert (type(error), error.seconds, error.pid) == (RequestTimeout, 1e-9, "raw")
    child.wait_for((CANCEL, (number,)))


def test_one_that_is_answered_before_has_no_deadline_any_more(places, raw):
    place = places("top")
    child = raw(place)
    answer = place.ask_async(["raw"], "x", timeout=1e-9)
    respond(child, child.next_payload()[1][0], "value")
    assert answer.result(CEILING) == "value"
    place.look_at_deadlines()
    assert answer.result() == "value"


def test_each_of_several_ends_when_its_own_time_is_over(places, raw):
    place = places("top")
    raw(place)
    slow = place.ask_async(["raw"], "x", timeout=1000)
    fast = [place.ask_async(["raw"], "x", timeout=1e-9) for _ in range(3)]
    place.look_at_deadlines()
    assert [type(answer.exception(0)) for answer in fast] == [RequestTimeout] * 3
    assert not slow.done()
    with place.node.lock:
        assert place.node.timers.next_at() is not None  # the slow one is looked at again


# Coroutines


def test_it_can_be_awaited(pair):
    parent, child = pair
    child.answer("square", lambda message, n: n * n)

    async def main():
        one, other = parent.ask_async(["child"], "square", 3), parent.ask_async(["child"], "square", 4)
        return await one, await asyncio.wrap_future(other)

    assert asyncio.run(main()) == (9, 16)


def test_a_task_that_is_cancelled_cancels_it(asked):
    _, child, answer, number = asked

    async def main():
        async def wait():
            return await answer

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert answer.cancelled()
    child.wait_for((CANCEL, (number,)))


def test_the_repr_says_of_whom_what_and_what_came(asked):
    _, child, answer, _ = asked
    assert repr(answer) == "<Answer of raw to 'x', pending>"
    child.socket.close()
    answer.exception(CEILING)
    assert repr(answer).startswith("<Answer of raw to 'x', finished, ")
    assert len(repr(answer)) < 200


def test_an_answer_and_a_cancel_at_the_same_moment_agree(places, raw):
    place = places("top")
    child = raw(place)
    for _ in range(50):
        answer = place.ask_async(["raw"], "x")
        number = child.next_payload()[1][0]
        cancels = in_thread(answer.cancel)
        respond(child, number, "value")
        assert cancels() is None
        if answer.cancelled():
            assert answer.cancel() is True
        else:
            assert answer.result(CEILING) == "value"
