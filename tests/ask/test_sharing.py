"""Requests to any: who gets them, what waits, what becomes of them when one ends, and what is taken back."""

from __future__ import annotations

import itertools
import queue
import threading
import time

import pytest
from asked import answers
from crews import Worker, assert_balanced, nothing_is_left, takes_back, waiting
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from places import CEILING, Place, Raw, free, in_thread, jam, join, queued, settle

from ipevents._ask import sharing as module
from ipevents._core.messages import ANSWER, CANCEL, ONLINE, REQUEST_ANY, TAKE_BACK
from ipevents._core.requests import (
    CANCELLED,
    LOST,
    NO_ANSWERER,
    OVERDUE,
    RAISED,
    REFUSED,
    SPLIT,
    VALUE,
    begun_nothing,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    MessageTooLarge,
    NoAnswerer,
    OutboxFull,
    ProtocolError,
    RequestError,
    RequestTimeout,
    WouldDeadlock,
)


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    """By the clock of the module each answer takes a second, so nobody gets more than one ahead."""
    ticks = itertools.count()
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + next(ticks))


@pytest.fixture
def top(places):
    return places("top")


@pytest.fixture
def worker(top, raw):
    """Makes workers of a place."""
    return lambda pid, capacity=1, **how: Worker(top, raw, pid, capacity, **how)


@pytest.fixture
def two(worker):
    """Two workers that answer "x", one request at a time."""
    return worker("a"), worker("b")


@pytest.fixture
def above(top):
    """The parent of a place, that is only a socket."""
    made = Raw(top, "above", above=True)
    yield made
    made.socket.close()
    made._ours.close()


def ask(place, *values, **how):
    """Ask any one, once with each argument."""
    return [place.ask_any_async("x", value, **how) for value in values]


def error_of(answer):
    return answer.exception(CEILING)


# Who gets it


def test_the_one_with_the_least_of_it_for_its_capacity_gets_the_next(top, worker):
    small, large = worker("small"), worker("large", 3)
    ask(top, *range(1, 7))
    assert small.read() == [1, 5]
    assert large.read() == [2, 3, 4, 6]


def test_an_answer_comes_back_and_the_next_request_goes_there(top, two):
    a, b = two
    first, second = ask(top, 1, 2)
    a.read(), b.read()
    b.answer(2, "value")
    assert (second.result(CEILING), second.pid, second.attempts) == ("value", "b", 1)
    (third,) = ask(top, 3)
    assert (a.read(), b.read()) == ([], [3])
    a.answer(1)
    b.answer(3)
    assert (first.result(CEILING), third.result(CEILING)) == (1, 3)
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_what_nobody_has_room_for_waits_and_is_given_out_in_its_order(top, two):
    a, b = two
    pending = ask(top, *range(1, 8))
    assert (a.read(), b.read()) == ([1, 3], [2, 4])
    assert (waiting(top), top.asks.stats()["open"]) == (3, 7)
    b.answer(2)
    assert (a.read(), b.read()) == ([], [5])
    a.answer(3)
    assert (a.read(), b.read()) == ([6], [])
    a.answer(1)
    assert (a.read(), b.read()) == ([7], [])
    for value in (6, 7):
        a.answer(value)
    for value in (4, 5):
        b.answer(value)
    assert [each.result(CEILING) for each in pending] == list(range(1, 8))
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_one_that_joins_gets_what_waits(top, worker):
    a = worker("a")
    ask(top, *range(1, 6))
    assert a.read() == [1, 2]
    b = worker("b", 2)
    assert b.read() == [3, 4, 5]


def test_one_whose_capacity_grows_gets_what_waits(top, worker):
    a = worker("a")
    ask(top, *range(1, 6))
    assert a.read() == [1, 2]
    a.answers(3)
    a.settle()
    assert a.read() == [3, 4]


def test_while_answers_come_fast_one_gets_more_ahead(top, worker, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    a = worker("a")
    ask(top, *range(1, 100))
    assert a.read() == [1, 2]
    now[0] += 0.0005
    a.answer(1)
    assert len(a.read()) == 10
    now[0] += 10.0
    a.answer(2)
    assert a.read() == []


def test_each_event_has_its_own_that_answer(top, worker):
    a, b = worker("a"), worker("b", capacity=0)
    b.answers(1, "y")
    b.settle()
    top.ask_any_async("y", "of y")
    ask(top, "of x")
    assert (a.read(), b.read()) == (["of x"], ["of y"])


def test_a_request_and_its_answer_have_all_that_others_have(places):
    top, child = places("top"), places("child")

    def function(message, *args, **kwargs):
        if not args:
            raise LookupError("mine")
        return message.type, message.pids, args, kwargs

    child.answer("x", function)
    join(top, child)
    settle(top, child)
    assert top.ask_any("x", 1, [2], a=3) == ("requestAny", ("top", "child"), (1, [2]), {"a": 3})
    assert top.ask_any("x", b"x" * (5 << 20))[2] == (b"x" * (5 << 20),)
    with pytest.raises(LookupError, match="mine"):
        top.ask_any("x")


def test_in_a_tree_it_goes_down_to_whoever_answers_and_over_the_top(places):
    top, left, right, leaf = (places(pid) for pid in ("top", "left", "right", "leaf"))
    top.node.announced = True
    leaf.answer("x", lambda message: ("leaf", message.pids))
    join(top, left)
    join(top, right)
    join(left, leaf)
    settle(top, left, leaf)
    assert top.ask_any("x") == ("leaf", ("top", "left", "leaf"))
    assert left.ask_any("x") == ("leaf", ("left", "leaf"))
    assert right.ask_any("x") == ("leaf", ("right", "top", "left", "leaf"))
    assert leaf.ask_any("x") == ("leaf", ("leaf",))  # no other does
    for place in (top, left, right, leaf):
        nothing_is_left(place)
        assert_balanced(place)


def test_many_requests_from_everywhere_are_answered_once_each(places):
    top, left, right, leaf = (places(pid) for pid in ("top", "left", "right", "leaf"))
    top.node.announced = True
    done = queue.SimpleQueue()

    def function(message, value):
        done.put(value)
        return value

    left.answer("x", function)
    right.answer("x", function, threads=3)
    leaf.answer("x", function, threads=1)
    join(top, left)
    join(top, right)
    join(left, leaf)
    settle(top, left, leaf)
    settle(top, right)
    pending = {
        (place.pid, number): place.ask_any_async("x", (place.pid, number))
        for number in range(200)
        for place in (top, left, right, leaf)
    }
    assert {key: each.result(CEILING) for key, each in pending.items()} == {key: key for key in pending}
    assert sorted(done.get() for _ in pending) == sorted(pending)
    assert done.empty()
    settle(top, left, leaf)
    settle(top, right)
    for place in (top, left, right, leaf):
        nothing_is_left(place)
        assert_balanced(place)


# Nobody answers


def test_in_an_empty_tree_nobody_answers(top):
    with pytest.raises(NoAnswerer, match=r"no process below .*top.* answers 'x'"):
        top.ask_any("x")
    (answer,) = ask(top, 1)
    assert (type(error_of(answer)), answer.attempts) == (NoAnswerer, 0)
    assert top.asks.stats()["requests"] == 2
    nothing_is_left(top)
    assert top.asks.sharing.crews == {}


def test_after_all_have_ceased_to_answer_nobody_does(top, two):
    for each in two:
        each.answers(0)
        each.settle()
    with pytest.raises(NoAnswerer):
        top.ask_any("x")


def test_what_waits_ends_when_the_last_one_ceases_to_answer(top, worker):
    a = worker("a")
    pending = ask(top, 1, 2, 3, 4)
    assert a.read() == [1, 2]
    a.answers(0)
    a.settle()
    assert [type(error_of(each)) for each in pending[2:]] == [NoAnswerer, NoAnswerer]
    a.answer(1)
    a.answer(2)
    assert [each.result(CEILING) for each in pending[:2]] == [1, 2]
    nothing_is_left(top)
    assert top.asks.sharing.crews == {}


def test_one_at_which_nobody_answers_after_all_does_not_get_it_again(top, two):
    a, b = two
    (answer,) = ask(top, 1)
    a.read()
    a.knows_nobody(1)
    assert (a.read(), b.read()) == ([], [1])
    b.knows_nobody(1)
    assert type(error_of(answer)) is NoAnswerer
    assert (answer.attempts, error_of(answer).attempts, error_of(answer).why) == (2, 2, "nobody here")
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_what_waits_for_the_last_one_that_may_get_it_ends_with_that(top, two):
    """The other one answers, but not this one."""
    a, b = two
    answer, *others = ask(top, 1, 2, 3, 4)
    a.read(), b.read()
    a.knows_nobody(1)
    assert (a.read(), b.read(), waiting(top)) == ([], [], 1)
    b.closes()
    assert type(error_of(answer)) is NoAnswerer
    assert type(error_of(others[0])) is AnswererLost
    a.answer(3)
    assert others[1].result(CEILING) == 3
    nothing_is_left(top)


# This process itself


@pytest.mark.parametrize("threads", [0, 1])
def test_this_process_answers_only_if_no_other_does(top, worker, threads):
    top.answer("x", lambda message, value: ("top", message.pids, value), threads)
    assert top.ask_any("x", 1) == ("top", ("top",), 1)
    a = worker("a")
    pending = ask(top, 1, 2, 3)
    assert a.read() == [1, 2]
    a.answer(1)
    a.answer(2)
    a.read()
    a.answer(3, "a")
    assert pending[2].result(CEILING) == "a"
    a.closes()
    assert top.ask_any("x", 4) == ("top", ("top",), 4)


def test_a_request_goes_up_where_nobody_below_answers(top, above, worker):
    worker("a", capacity=0)
    top.answer("x", lambda message: "mine")
    answer = top.ask_any_async("x", 7)
    kind, _, to, ((number, _, value),) = above.next_request()
    assert (kind, to, value) == (REQUEST_ANY, None, 7)
    above.send((ANSWER, ("far", "above"), "x", None, [(number, VALUE, "value")]))
    assert (answer.result(CEILING), answer.pid, answer.attempts) == ("value", "far", 1)
    nothing_is_left(top)
    assert top.asks.sharing.crews == {}


@pytest.mark.parametrize("threads", [0, 1])
def test_where_nobody_above_answers_either_it_is_this_processs_turn(top, above, threads):
    top.answer("x", lambda message, value: ("mine", value), threads)
    answer = top.ask_any_async("x", 7)
    number = above.next_payload()[1][0]
    above.send((ANSWER, ("above",), "x", None, [(number, NO_ANSWERER, "nobody up here")]))
    assert answer.result(CEILING) == ("mine", 7)
    assert top.asks.stats()["requests"] == 1
    nothing_is_left(top)
    assert_balanced(top)


def test_where_nobody_does_the_one_above_says_why(top, above):
    answer = top.ask_any_async("x", 7)
    number = above.next_payload()[1][0]
    above.send((ANSWER, ("above",), "x", None, [(number, NO_ANSWERER, "nobody up here")]))
    assert (type(error_of(answer)), error_of(answer).why) == (NoAnswerer, "nobody up here")
    assert above.link.outbox.count == 0
    assert top.asks.sharing.crews == {}


def test_while_the_server_is_away_nobody_above_is_asked(top, above):
    with top.node.lock:
        top.node.router.set_up(Up.AWAY)
    with pytest.raises(NoAnswerer, match=r"the server of .* is away, and nobody below answers 'x'"):
        top.ask_any("x")
    assert queued(top, above.link) == []


def test_nobody_waits_in_a_listener(top, two):
    caught = []

    def listener(message):
        try:
            top.ask_any("x")
        except WouldDeadlock as exc:
            caught.append(exc)
        caught.append(top.ask_any_async("x", 1))

    top.on("go", listener)
    top.node.events.emit("go", (), {})
    assert type(caught[0]) is WouldDeadlock
    two[0].read()
    two[0].answer(1)
    assert caught[1].result(CEILING) == 1


# Through this process


@pytest.fixture
def middle(top, above):
    """Sends requests to any from the parent, and waits until they are handled."""

    def send(*payloads):
        above.send((REQUEST_ANY, ("far", "above"), "x", None, list(payloads)))
        settles()

    def settles():
        heard = threading.Event()
        top.on("settled above", lambda message: heard.set())
        above.send((2, ("above",), "settled above", None, [()]))
        assert heard.wait(CEILING)

    send.settles = settles
    return send


def test_what_comes_from_above_is_shared_among_those_below(top, above, middle, two):
    a, b = two
    middle((11, 0, "one"), (12, 0, "two"), (13, 0, "three"))
    assert (a.read(), b.read()) == (["one", "three"], ["two"])
    assert a.paths[a.number("one")] == ("far", "above", "top")
    b.answer("two", 2)
    a.say("three", RAISED, "whatever")
    a.answer("one", 1)
    assert answers(above, 3) == [(12, VALUE, (2,)), (13, RAISED, ("whatever",)), (11, VALUE, (1,))]
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_the_answer_has_the_path_of_who_has_given_it(top, above, middle, two):
    two[0].raw.send((ONLINE, ("leaf", "a")))
    two[0].settle()
    middle((11, 0, "one"))
    two[0].read()
    two[0].raw.send((ANSWER, ("leaf", "a"), "x", None, [(1, VALUE, "value")]))
    two[0].settle()
    while (record := next(iter(above.next_records())))[0] != ANSWER:
        pass
    assert record[:3] == (ANSWER, ("leaf", "a", "top"), "x")


def test_what_comes_from_below_is_never_given_back_to_the_asker(top, two):
    a, b = two
    a.asks((21, 0, "one"), (22, 0, "two"), (23, 0, "three"))
    assert (a.read(), b.read()) == ([], ["one", "two"])
    assert waiting(top) == 1
    b.answer("one", 1)
    assert (a.read(), b.read()) == ([], ["three"])
    assert a.answered(1) == [(21, VALUE, (1,))]


def test_what_cannot_go_to_the_idle_one_does_not_hold_up_what_can(top, two):
    a, b = two
    a.asks((21, 0, "one"), (22, 0, "two"), (23, 0, "three"))
    ask(top, "mine")
    assert (a.read(), b.read()) == (["mine"], ["one", "two"])


def test_what_comes_from_below_goes_up_where_no_other_answers(top, above, worker):
    a = worker("a")
    a.asks((21, 0, "one"))
    kind, _, _, ((number, _, value),) = above.next_request()
    assert (kind, value) == (REQUEST_ANY, "one")
    above.send((ANSWER, ("above",), "x", None, [(number, VALUE, 1)]))
    assert a.answered(1) == [(21, VALUE, (1,))]
    nothing_is_left(top)
    assert_balanced(top, a)


def test_what_comes_from_below_is_told_that_nobody_answers(top, worker):
    a = worker("a")
    a.asks((21, 0, "one"))
    ((number, status, (why,)),) = a.answered(1)
    assert (number, status) == (21, NO_ANSWERER)
    assert "answers 'x'" in why
    nothing_is_left(top)
    assert_balanced(top, a)


def test_what_comes_from_above_never_goes_back_there(top, above, middle, worker):
    a = worker("a")
    middle((11, 0, "one"))
    a.read()
    a.knows_nobody("one")
    assert [each[:2] for each in answers(above, 1)] == [(11, NO_ANSWERER)]
    nothing_is_left(top)


@pytest.mark.parametrize("threads", [0, 1])
def test_a_process_between_answers_itself_where_nobody_below_it_does(top, above, middle, worker, threads):
    top.answer("x", lambda message, value: f"{value} of {message.pids[0]}", threads)
    a = worker("a", capacity=0)
    a.asks((21, 0, "one"))
    assert a.answered(1) == [(21, VALUE, ("one of a",))]
    middle((11, 0, "two"))
    assert answers(above, 1) == [(11, VALUE, ("two of far",))]


def test_more_than_may_wait_here_is_refused(top, above, middle, worker, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    a = worker("a")
    middle(*[(number, 0, number) for number in range(11, 17)])
    assert a.read() == [11, 12]
    found = answers(above, 2)
    assert [each[:2] for each in found] == [(15, REFUSED), (16, REFUSED)]
    assert "too much waits for any that answers 'x'" in found[0][2][0]
    assert waiting(top) == 2


def test_a_request_with_a_route_is_none_to_any(top, worker):
    a, b = worker("a"), worker("b")
    a.raw.send((REQUEST_ANY, ("a",), "x", ("b", ("b",)), [(21, 0)]))
    assert type(top.next_closed()[1]) is ProtocolError
    assert b.read() == []


BAD_PAYLOADS = [("x",), b"short", (0, 0), (1 << 63, 0)]


@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=range(4))
def test_of_a_record_with_a_forged_request_none_is_given_out(top, two, payload):
    a, b = two
    a.raw.send((REQUEST_ANY, ("a",), "x", None, [(21, 0, "good"), payload]))
    assert type(top.next_closed()[1]) is ProtocolError
    assert b.read() == []
    assert waiting(top) == 0


def test_what_waits_while_this_process_gets_another_name_still_arrives(top, worker):
    a, b = worker("a"), worker("b")
    a.asks((21, 0, "one"), (22, 0, "two"), (23, 0, "three"))
    b.read()
    with top.node.lock:
        top.node.presence.rename("renamed")
    b.answer("one", 1)
    assert b.read() == ["three"]
    assert b.paths[b.number("three")] == ("a", "renamed")


# While somebody is coming


def test_while_a_child_is_about_to_be_there_a_request_waits_for_it(top, raw, worker):
    top.asks.sharing.is_any_coming = lambda: True
    pending = ask(top, 1, 2)
    assert waiting(top) == 2
    a = worker("a")
    assert a.read() == [1, 2]
    a.answer(1)
    a.answer(2)
    assert [each.result(CEILING) for each in pending] == [1, 2]
    nothing_is_left(top)


def test_when_nobody_is_coming_any_more_what_has_waited_ends(top, worker):
    coming = [True]
    top.asks.sharing.is_any_coming = lambda: coming[0]
    asker = worker("asker")  # which answers, but not itself
    asker.asks((21, 0, "one"))
    b = worker("b", capacity=0)
    b.asks((31, 0, "two"))
    assert (asker.read(), waiting(top)) == (["two"], 1)
    coming.clear()
    coming.append(False)
    with top.node.lock:
        top.asks.child_settled()
    assert asker.answered(1)[0][:2] == (21, NO_ANSWERER)
    assert waiting(top) == 0
    assert_balanced(top, asker, b)


def test_what_waits_for_a_pool_waits_although_nobody_answers_and_does_not_go_up(top, above, worker):
    with top.node.lock:
        crew = top.asks.sharing._crew("x")
        crew.is_open = True
    pending = ask(top, 1, 2)
    assert waiting(top) == 2
    assert queued(top, above.link) == []
    a = worker("a")
    assert a.read() == [1, 2]
    a.lost(1, False)
    assert (a.read(), waiting(top)) == ([], 1)
    a.dies(begun=2)
    assert not pending[0].done()
    assert type(error_of(pending[1])) is AnswererLost
    again = worker("again")
    assert again.read() == [1]
    assert top.asks.sharing.crews == {"x": crew}


# One that ends


def test_what_may_have_begun_in_one_that_ends_is_lost(top, two):
    a, b = two
    (answer,) = ask(top, 1)
    a.read()
    a.closes()
    error = error_of(answer)
    assert (type(error), error.pid, error.begun, error.attempts) == (AnswererLost, "a", None, 1)
    assert b.read() == []
    assert top.asks.stats()["retried"] == 0
    nothing_is_left(top)
    assert_balanced(top, b)


def test_what_had_not_begun_in_one_that_ends_goes_to_another_by_itself(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3, 4, 5)
    a.read(), b.read()
    a.dies(begun=1)
    assert type(error_of(pending[0])) is AnswererLost
    assert (error_of(pending[0]).begun, error_of(pending[0]).exitcode) == (True, -9)
    assert (b.read(), waiting(top)) == ([], 2)
    b.answer(2)
    b.answer(4)
    assert b.read() == [3, 5]
    for value in (3, 5):
        b.answer(value)
    assert [each.result(CEILING) for each in pending[1:]] == [2, 3, 4, 5]
    assert [each.attempts for each in pending] == [1, 1, 2, 1, 1]
    assert top.asks.stats()["retried"] == 0
    nothing_is_left(top)


@pytest.mark.parametrize("begun", [1, None])
def test_with_a_retry_it_goes_to_another_one_although_it_may_have_begun(top, two, begun):
    a, b = two
    (answer,) = ask(top, 1, retry=1)
    a.read()
    if begun:
        a.dies(begun)
    else:
        a.closes()
    assert b.read() == [1]
    assert top.asks.stats()["retried"] == 1
    b.dies(1)
    error = error_of(answer)
    assert (type(error), error.pid, error.begun, error.attempts) == (AnswererLost, "b", True, 2)
    assert top.asks.stats()["retried"] == 1
    nothing_is_left(top)


def test_a_retry_that_has_nobody_to_go_to_is_none(top, worker):
    a = worker("a")
    (answer,) = ask(top, 1, retry=5)
    a.read()
    a.dies(1)
    assert (type(error_of(answer)), error_of(answer).attempts) == (AnswererLost, 1)
    assert top.asks.stats()["retried"] == 0


def test_it_goes_first_to_one_that_was_not_lost_with_it_and_to_that_again_if_no_other_is_left(top, raw, two):
    a, b = two
    (answer,) = ask(top, 1, retry=5)
    a.read()
    a.lost(1, True)
    assert (a.read(), b.read()) == ([], [1])
    b.lost(1, None)  # both were lost with it now
    assert (a.read(), b.read()) == ([1], [])
    b.answers(0)
    b.settle()
    a.lost(1, True)
    assert a.read() == [1]
    a.answer(1)
    assert (answer.result(CEILING), answer.attempts) == (1, 4)
    assert_balanced(top, a, b)


def test_it_waits_for_one_that_was_not_lost_with_it(top, two):
    a, b = two
    answer, *_ = ask(top, 1, 2, 3, 4, retry=1)
    a.read(), b.read()
    a.lost(1, True)
    assert (a.read(), b.read(), waiting(top)) == ([], [], 1)
    ask(top, 5)
    assert (a.read(), b.read(), waiting(top)) == ([5], [], 1)  # which the other one may get
    b.answer(2)
    assert b.read() == [1]


@pytest.mark.parametrize(
    ("begun", "retry", "goes_on"),
    [
        (False, 0, True),
        (True, 0, False),
        (None, 0, False),
        (True, 1, True),
        (None, 1, True),
        ("?", 0, False),
    ],
)
def test_what_is_lost_behind_a_neighbour_is_as_what_is_lost_with_it(top, two, begun, retry, goes_on):
    a, b = two
    (answer,) = ask(top, 1, retry=retry)
    a.read()
    a.lost(1, begun)
    assert (a.read(), b.read()) == ([], [1] if goes_on else [])
    if not goes_on:
        error = error_of(answer)
        assert (type(error), error.pid, error.exitcode) == (AnswererLost, "deeper", 3)
        assert error.begun == (None if begun == "?" else begun)
    assert_balanced(top, a, b)


def test_one_that_begins_nothing_any_more_is_not_asked_again_and_again(top, worker):
    """As one does that stops: until it has ended it says of each that it was not begun."""
    a = worker("a")
    (answer,) = ask(top, 1)
    a.read()
    a.lost(1, False)
    error = error_of(answer)
    assert (type(error), error.begun, error.attempts) == (AnswererLost, False, 1)
    assert a.read() == []
    nothing_is_left(top)


def test_the_next_process_at_its_link_is_another_one(top, two):
    a, b = two
    answer, *_ = ask(top, 1, 2, 3, 4)
    a.read(), b.read()
    a.lost(1, False)
    a.lost(3, False)
    assert (a.read(), waiting(top)) == ([], 2)
    with top.node.lock:
        top.asks.link_gone(a.link, 0, begun_nothing, goes_on=True)
        top.node.presence.child_gone(a.link, 0)
        top.node.router.add_child(a.link, "a")
    a.raw.send((ONLINE, ("a",)))
    a.answers(1)
    a.settle()
    assert (sorted(a.read()), b.read()) == ([1, 3], [])


def test_a_neighbour_is_given_nothing_in_the_moment_in_which_it_goes(top, worker):
    """It may have changed who answers since somebody was last asked, and is still a neighbour just then."""
    a = worker("a")
    answer, other = ask(top, 1, 2)
    a.read()
    with top.node.lock:
        top.node.router.own_answers("z", 1)  # any change
        top.asks.link_gone(a.link, -9, begun_nothing)
        assert top.asks.requests.count(a.link) == 0
        top.node.presence.child_gone(a.link, -9)
    for each in (answer, other):
        assert (type(error_of(each)), error_of(each).begun) == (AnswererLost, False)
    nothing_is_left(top)


def test_a_parent_is_given_nothing_in_the_moment_in_which_it_goes(top, above):
    answer = top.ask_any_async("x", 1, retry=3)
    above.next_payload()
    with top.node.lock:
        top.asks.link_gone(above.link)
        assert top.asks.requests.count(above.link) == 0
        top.node.router.set_up(Up.AWAY)
    assert (type(error_of(answer)), error_of(answer).attempts) == (AnswererLost, 1)


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("how", ["dies", "lost", "waits"])
def test_this_process_answers_its_own_request_when_the_last_one_that_had_it_is_gone(
    top, worker, threads, how
):
    top.answer("x", lambda message, value: ("top", value), threads)
    a = worker("a")
    pending = ask(top, 1, 2, 3)
    a.read()
    answer = pending[2] if how == "waits" else pending[1]
    if how == "lost":
        a.lost(2, False)
    else:
        a.dies(begun=1)
    assert answer.result(CEILING) == ("top", 3 if how == "waits" else 2)
    assert answer.attempts == (1 if how == "waits" else 2)


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("how", ["dies", "knows nobody", "waits"])
def test_this_process_answers_for_a_neighbour_when_the_last_one_that_had_it_is_gone(
    top, worker, threads, how
):
    top.answer("x", lambda message, value: f"{value} of {message.pids[0]}", threads)
    asker, a = worker("asker", capacity=0), worker("a")
    asker.asks((21, 0, "first"), (22, 0, "one"), (23, 0, "two"))
    a.read()
    if how == "knows nobody":
        a.knows_nobody("one")
        assert asker.answered(1) == [(22, VALUE, ("one of asker",))]
    else:
        a.dies(begun="first")
        assert sorted(asker.answered(3)) == [
            (21, LOST, ("a", "", -9, True)),
            (22, VALUE, ("one of asker",)),
            (23, VALUE, ("two of asker",)),
        ]
    over = threading.Event()
    top.node.notices.put(over.set)
    assert over.wait(CEILING)
    assert top.asks.answering._late == {}


def test_what_this_process_was_to_answer_for_one_that_is_gone_is_not_begun(top, worker):
    begun = []
    held, may_go = threading.Event(), threading.Event()
    top.answer("x", lambda message, value: begun.append(value))
    asker, a = worker("asker", capacity=0), worker("a")
    asker.asks((21, 0, "one"))
    a.read()

    def hold():
        held.set()
        assert may_go.wait(CEILING)

    top.node.notices.put(hold)
    assert held.wait(CEILING)
    a.dies(begun=None)
    asker.closes()
    may_go.set()
    over = threading.Event()
    top.node.notices.put(over.set)
    assert over.wait(CEILING)
    assert (begun, top.asks.answering._late) == ([], {})


# Cancelled, gone, too late


def test_what_waits_and_is_cancelled_is_never_given_out(top, worker):
    a = worker("a")
    pending = ask(top, 1, 2, 3, 4)
    assert pending[2].cancel()
    assert (waiting(top), top.asks.stats()["open"]) == (1, 3)
    a.read()
    a.answer(1)
    a.answer(2)
    assert a.read() == [4]
    assert a.cancelled == []
    assert_balanced(top, a)


def test_what_was_given_and_is_cancelled_is_cancelled_there(top, two):
    a, b = two
    (answer,) = ask(top, 1)
    a.read()
    assert answer.cancel()
    assert (a.read(), a.cancelled, b.read(), b.cancelled) == ([], [a.number(1)], [], [])
    a.gives_back(1)
    assert top.asks.stats()["late"] == 1
    assert (a.read(), b.read()) == ([], [])
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_what_was_cancelled_is_given_to_nobody_else(top, two):
    a, b = two
    pending = ask(top, 1, 2, retry=3)
    a.read(), b.read()
    assert pending[0].cancel()
    assert pending[1].cancel()
    a.dies(None)
    b.lost(2, False)
    assert b.read() == []
    nothing_is_left(top)


def test_one_that_is_told_that_it_is_cancelled_while_it_waits_again_ends(top, worker):
    """It had begun, was lost, and waits for another one."""
    a = worker("a")
    ask(top, 1, 2)
    (answer,) = ask(top, 3)
    top.asks.tell_cancelled(answer)
    assert (type(error_of(answer)), error_of(answer).begun) == (AnswererLost, False)
    assert waiting(top) == 0
    a.read()


def test_a_request_of_a_neighbour_is_cancelled_where_it_is(top, two):
    a, b = two
    a.asks((21, 0, "one"), (22, 0, "two"), (23, 0, "three"))
    b.read()
    a.cancels(23, 21)
    assert a.answered(1) == [(23, CANCELLED, ())]
    assert (b.read(), b.cancelled) == ([], [b.number("one")])
    b.gives_back("one")
    assert a.answered(1) == [(21, CANCELLED, ())]
    assert waiting(top) == 0
    assert_balanced(top, a, b)


def test_of_an_asker_that_is_gone_what_waits_is_dropped_and_the_rest_is_cancelled(top, two):
    a, b = two
    a.asks((21, 0, "one"), (22, 0, "two"), (23, 0, "three"))
    b.read()
    a.closes()
    assert waiting(top) == 0
    assert (b.read(), b.cancelled) == ([], [b.number("two"), b.number("one")])
    b.gives_back("two", "one")
    nothing_is_left(top)


def test_a_request_whose_time_is_over_while_it_waits_ends_here(top, worker):
    a = worker("a")
    ask(top, 1, 2)
    (answer,) = ask(top, 3, timeout=0.0001)
    until = time.monotonic() + 0.0001
    while time.monotonic() <= until:
        pass
    top.look_at_deadlines()
    assert (type(error_of(answer)), error_of(answer).attempts) == (RequestTimeout, 0)
    assert waiting(top) == 0
    a.read()
    a.answer(1)
    a.answer(2)
    assert a.read() == []


def test_a_request_of_a_neighbour_whose_time_is_over_is_not_given_out(top, two):
    a, b = two
    over = int(time.monotonic() * 1000) - 1
    a.asks((21, 0, "one"), (22, over, "two"), (23, 0, "three"), (24, 0, "four"))
    assert b.read() == ["one", "three"]
    assert a.answered(1) == [(22, OVERDUE, ())]
    nothing = waiting(top)
    assert nothing == 1


def test_a_request_that_waits_is_given_out_with_its_deadline(top, two):
    a, b = two
    later = int(time.monotonic() * 1000) + 1_000_000
    a.asks((21, 0, "one"), (22, 0, "two"), (23, later, "three"))
    b.read()
    b.answer("one")
    b.read()
    assert b.deadlines[b.number("three")] == later


# Taken back


def test_work_that_one_has_ahead_is_taken_back_for_one_that_is_idle(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    assert (list(a.has.values()), list(b.has.values())) == ([1, 3], [2])
    takes_back(top)
    assert (a.read(), a.taken) == ([], [])  # nobody is idle
    b.answer(2)
    takes_back(top)
    assert (a.read(), a.taken, b.read()) == ([], [a.number(3)], [])
    a.gives_back(3)
    assert (a.read(), b.read()) == ([], [3])
    b.answer(3)
    a.answer(1)
    assert [each.result(CEILING) for each in pending] == [1, 2, 3]
    assert [each.attempts for each in pending] == [1, 1, 1]
    assert (a.taken, b.taken) == ([2], [])
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_what_was_begun_meanwhile_is_answered_and_stays(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    b.answer(2)
    takes_back(top)
    a.read()
    a.answer(1)
    a.answer(3, "begun")
    assert pending[2].result(CEILING) == "begun"
    assert (a.read(), b.read()) == ([], [])
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_it_goes_over_the_control_channel_where_there_is_one(top, two):
    a, b = two

    class Channel:
        def __init__(self):
            self.records = []

        def put(self, record):
            self.records.append(record)

    rung = []
    ask(top, 1, 2, 3)
    a.read(), b.read()
    a.link.channel = channel = Channel()
    b.answer(2)
    top.node.timers.ring = lambda: rung.append(True)
    takes_back(top)
    assert channel.records == [(TAKE_BACK, "x", (a.number(3),))]
    assert rung == [True]


def test_of_what_is_ahead_the_idle_ones_get_their_part_the_last_first(top, worker):
    a = worker("a", 8)
    ask(top, *range(1, 10))
    with top.node.lock:
        top.asks.sharing.crews["x"].members[a.link].ahead = 100
        top.asks.sharing.fill_all()
    ask(top, *range(10, 30))
    assert a.read() == list(range(1, 30))
    b = worker("b", 2)
    takes_back(top)
    assert (a.read(), len(a.taken)) == ([], 4)  # 2 of 10 parts of the 21 that are ahead
    assert a.taken == [a.number(value) for value in (29, 28, 27, 26)]
    a.gives_back(29, 28, 27, 26)
    assert b.read() == [29, 28, 27]
    assert waiting(top) == 0 or a.read() == [26]
    assert_balanced(top, a, b)


def test_nothing_is_taken_back_that_the_idle_one_may_not_get(top, two):
    """The idle one has asked for it itself: it would go to and fro for ever."""
    a, b = two
    a.asks((21, 0, "one"), (22, 0, "two"))
    assert b.read() == ["one", "two"]
    takes_back(top)
    assert (b.read(), b.taken) == ([], [])
    assert_balanced(top, a, b)


def test_where_the_first_has_nothing_that_the_idle_one_may_get_the_next_gives_it(top, worker):
    a, b, c = worker("a"), worker("b"), worker("c")
    ask(top, 1, 2, 3, 4, 5, 6)
    for each in (a, b, c):
        each.read()
    a.answer(1)
    a.answer(4)
    b.answer(2)
    b.answer(5)
    a.asks((21, 0, "one"), (22, 0, "two"))
    assert b.read() == ["one", "two"]
    takes_back(top)
    assert (b.read(), b.taken) == ([], [])
    assert (c.read(), c.taken) == ([], [c.number(6)])
    assert_balanced(top, a, b, c)


def test_what_is_cancelled_there_already_is_not_taken_back_and_nothing_else_in_its_place(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    assert pending[2].cancel()
    b.answer(2)
    takes_back(top)
    assert (a.read(), a.taken) == ([], [])
    a.gives_back(3)
    ask(top, 4, 5, 6)
    assert (a.read(), b.read()) == ([5], [4, 6])
    a.answer(1)
    a.answer(5)
    takes_back(top)
    assert (b.read(), b.taken) == ([], [b.number(6)])
    assert_balanced(top, a, b)


def test_it_is_looked_once_for_several_answers_and_again_after_those_that_follow(top, two):
    a, b = two
    ask(top, 1, 2, 3)
    a.read(), b.read()
    b.answer(2)
    crew = top.asks.sharing.crews["x"]
    assert crew.is_watched
    assert list(top.node.timers._waiting) == [crew]
    takes_back(top)
    assert not crew.is_watched
    a.read()
    a.answer(1)
    a.answer(3)
    assert not crew.is_watched


def test_one_that_is_given_back_when_nobody_answers_any_more_ends(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    b.answer(2)
    takes_back(top)
    a.read()
    b.answers(0)
    b.settle()
    a.answers(0)
    a.gives_back(3)
    assert type(error_of(pending[2])) is NoAnswerer
    a.answer(1)
    assert pending[0].result(CEILING) == 1
    assert top.closed.empty()
    assert_balanced(top, a, b)
    nothing_is_left(top)


def test_one_that_ends_before_it_has_given_anything_back(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    b.answer(2)
    takes_back(top)
    a.read()
    a.dies(begun=1)
    assert b.read() == [3]
    b.answer(3)
    assert pending[2].result(CEILING) == 3
    nothing_is_left(top)


def test_what_is_taken_back_and_cancelled_is_given_to_nobody(top, two):
    a, b = two
    pending = ask(top, 1, 2, 3)
    a.read(), b.read()
    b.answer(2)
    takes_back(top)
    a.read()
    assert pending[2].cancel()
    a.gives_back(3)
    assert (a.read(), b.read()) == ([], [])
    assert_balanced(top, a, b)


def test_what_was_lost_with_the_idle_one_is_not_taken_back_for_it(top, two):
    a, b = two
    pending = ask(top, 1, 2, retry=1)
    a.read(), b.read()
    a.lost(1, True)
    assert (a.read(), b.read()) == ([], [1])
    takes_back(top)
    assert (b.read(), b.taken) == ([], [])
    b.answer(1)
    assert pending[0].result(CEILING) == 1


# Taken above


def test_what_waits_here_is_given_back_to_the_process_above(top, above, middle, worker):
    a = worker("a")
    middle((11, 0, "one"), (12, 0, "two"), (13, 0, "three"))
    assert a.read() == ["one", "two"]
    above.send((TAKE_BACK, "x", (13,)))
    assert answers(above, 1) == [(13, CANCELLED, ())]
    assert waiting(top) == 0
    a.answer("one", 1)
    assert a.read() == []
    assert answers(above, 1) == [(11, VALUE, (1,))]


def test_what_a_process_below_has_ahead_is_given_back_by_that(top, above, middle, worker):
    a = worker("a")
    middle((11, 0, "one"), (12, 0, "two"))
    a.read()
    above.send((TAKE_BACK, "x", (12, 11)))
    middle.settles()
    assert (a.read(), a.taken) == ([], [a.number("two"), a.number("one")])
    assert_balanced(top, a)
    a.gives_back("two")
    assert answers(above, 1) == [(12, CANCELLED, ())]
    assert a.read() == []
    a.answer("one", 1)  # it had begun
    assert answers(above, 1) == [(11, VALUE, (1,))]
    assert_balanced(top, a)
    nothing_is_left(top)


def test_what_is_being_taken_back_here_goes_above_if_that_wants_it(top, above, middle, two):
    a, b = two
    middle((11, 0, "one"), (12, 0, "two"), (13, 0, "three"))
    a.read(), b.read()
    b.answer("two", 2)
    answers(above, 1)
    takes_back(top)
    above.send((TAKE_BACK, "x", (13,)))
    middle.settles()
    assert (a.read(), a.taken) == ([], [a.number("three")])  # told once
    a.gives_back("three")
    assert answers(above, 1) == [(13, CANCELLED, ())]
    assert (a.read(), b.read()) == ([], [])
    assert_balanced(top, a, b)


def test_what_is_gone_already_or_never_came_is_not_given_back_twice(top, above, middle, worker):
    a = worker("a")
    middle((11, 0, "one"))
    a.read()
    a.answer("one", 1)
    assert answers(above, 1) == [(11, VALUE, (1,))]
    above.send((TAKE_BACK, "x", (11, 12)))
    assert answers(above, 1) == [(12, CANCELLED, ())]
    middle((12, 0, "two"), (13, 0, "three"))  # the first of these was taken back before it came
    assert a.read() == ["three"]
    a.answer("three", 3)
    assert answers(above, 1) == [(13, VALUE, (3,))]


class Held:
    """An answering function that waits until it is let go."""

    def __init__(self):
        self.begun = queue.SimpleQueue()
        self._may_end = threading.Semaphore(0)

    def __call__(self, message, value):
        self.begun.put(value)
        assert self._may_end.acquire(timeout=CEILING)
        return value

    def let_go(self, count=1):
        self._may_end.release(count)


@pytest.mark.parametrize("threads", [0, 1])
def test_work_is_taken_back_through_a_process_between(places, threads):
    top, left, right, leaf = (places(pid) for pid in ("top", "left", "right", "leaf"))
    slow, fast = Held(), Held()
    leaf.answer("x", slow, threads)
    right.answer("x", fast)
    join(top, left)
    join(left, leaf)
    settle(top, left, leaf)
    join(top, right)
    settle(top, right)
    pending = ask(top, 1, 2, 3)
    assert (slow.begun.get(timeout=CEILING), fast.begun.get(timeout=CEILING)) == (1, 2)
    fast.let_go()
    assert pending[1].result(CEILING) == 2
    settle(top, left)
    takes_back(top)
    if threads:  # otherwise the reader of the leaf, which hears of that, is in the function
        assert fast.begun.get(timeout=CEILING) == 3
        fast.let_go()
        assert pending[2].result(CEILING) == 3
        assert pending[2].attempts == 1
    slow.let_go(2)
    fast.let_go(2)
    assert [each.result(CEILING) for each in pending] == [1, 2, 3]
    settle(top, left, leaf)
    settle(top, right)
    for place in (top, left, right, leaf):
        nothing_is_left(place)
        assert_balanced(place)


# A stop


def test_a_stop_ends_what_waits_and_what_is_open(top, two):
    pending = ask(top, *range(1, 8))
    top.node.stage, top.node.sends_while_stopping = Stage.STOPPING, True
    top.asks.end_all()
    assert {type(error_of(each)) for each in pending} == {Closed}
    assert (waiting(top), top.asks.stats()["open"]) == (0, 0)
    a, b = two
    assert (a.read(), b.read()) == ([1, 3], [2, 4])
    assert (len(a.cancelled), len(b.cancelled)) == (2, 2)
    a.answer(1)
    assert a.read() == []


def test_a_request_that_meets_the_stop_is_closed(top, two):
    top.node.stage, top.node.sends_while_stopping = Stage.STOPPING, True
    with pytest.raises(Closed):
        top.ask_any_async("x", 1)
    assert two[0].read() == []


def test_another_life_begins_with_nothing(top, worker):
    worker("a")
    ask(top, 1, 2, 3, 4)
    top.asks.end_all()
    with top.node.lock:
        top.asks.renew()
    nothing_is_left(top)
    assert top.asks.sharing.crews == {}


# Too much


def test_a_listener_is_refused_where_too_much_waits(top, worker, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    worker("a")
    ask(top, 1, 2, 3, 4)
    caught = []

    def listener(message):
        try:
            top.ask_any_async("x", 5)
        except OutboxFull as exc:
            caught.append(str(exc))

    top.on("go", listener)
    top.node.events.emit("go", (), {})
    assert caught == ["request 'x' was not sent: 2 wait for any that answers, and a listener never waits"]
    assert top.asks.stats()["open"] == 4


@pytest.mark.parametrize("limit", ["MAX_OPEN", "OUTBOX_BYTES"])
def test_a_thread_waits_until_something_has_gone(top, worker, monkeypatch, limit):
    monkeypatch.setattr(module, limit, 1)
    a = worker("a")
    ask(top, 1, 2, 3)
    waits = threading.Event()
    original = top.asks.sharing._wait_room

    def wait_room():
        waits.set()
        original()

    monkeypatch.setattr(top.asks.sharing, "_wait_room", wait_room)
    pending = []
    result = in_thread(lambda: pending.extend(ask(top, 4)))
    assert waits.wait(CEILING)
    assert not pending
    a.read()
    a.answer(1)
    assert result() is None
    a.read()
    for value in (2, 3):
        a.answer(value)
    assert a.read() == [4]


def test_a_thread_that_waits_for_room_when_the_stop_begins_is_closed(top, worker, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 1)
    worker("a")
    ask(top, 1, 2, 3)
    waits = threading.Event()
    original = top.asks.sharing._wait_room

    def wait_room():
        waits.set()
        original()

    monkeypatch.setattr(top.asks.sharing, "_wait_room", wait_room)
    result = in_thread(lambda: ask(top, 4))
    assert waits.wait(CEILING)
    with top.node.lock:
        top.node.stage = Stage.STOPPING
    top.asks.end_all()
    assert type(result()) is Closed


def test_what_one_does_not_take_goes_to_one_that_does(top, worker):
    small, large = worker("small", 4, limit=10_000), worker("large")
    pending = ask(top, b"x" * 50_000, b"y" * 50_000, b"z" * 50_000, 1)
    assert small.read() == [1]
    assert len(large.read()) == 2
    assert waiting(top) == 1
    assert not any(each.done() for each in pending)
    assert_balanced(top, small, large)


def test_what_none_of_them_takes_is_refused_at_once(top, worker):
    worker("a", 2, limit=10_000)
    with pytest.raises(MessageTooLarge, match=r"client|socket.maxMessage"):
        top.ask_any("x", b"x" * 50_000)
    nothing_is_left(top)


def test_what_none_that_is_left_takes_is_refused(top, worker):
    small, large = worker("small", limit=10_000), worker("large")
    pending = ask(top, b"x" * 50_000, b"y" * 50_000, b"z" * 50_000)
    large.read()
    large.answers(0)
    large.settle()
    error = error_of(pending[2])
    assert type(error) is RequestError
    assert "socket.maxMessage" in str(error)
    assert small.read() == []


def test_one_that_says_it_can_do_very_much_is_given_no_more_than_may_be_open_at_a_link(
    top, worker, monkeypatch
):
    monkeypatch.setattr("ipevents._core.requests.MAX_OPEN", 3)
    a = worker("a", 1 << 30)
    ask(top, 1, 2, 3, 4, 5)
    assert (a.read(), waiting(top)) == ([1, 2, 3], 2)
    a.answer(1)
    assert a.read() == [4]


def test_what_finds_no_room_in_an_outbox_is_given_out_when_that_has_room_again(top, worker, monkeypatch):
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", 2)
    monkeypatch.setattr("ipevents._core.outbox.FRAME_BYTES", 1)
    a = worker("a", 10)
    jam(top, a.link)
    ask(top, 1, 2, 3, 4)
    assert waiting(top) == 2
    free(top, a.link)
    assert a.read() == [1, 2]
    top.look_at_deadlines()  # as the supervisor does then
    assert (a.read(), waiting(top)) == ([3, 4], 0)
    assert top.asks.sharing._full == set()


def test_one_that_has_nothing_to_do_gets_its_first_although_its_outbox_is_full(top, worker, monkeypatch):
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", 2)
    a = worker("a", 10)
    jam(top, a.link)
    for _ in range(2):
        top.send_to(["a"], "old")
    ask(top, 1, 2)
    assert waiting(top) == 1
    free(top, a.link)
    assert a.read() == [1]


# A client that is away


def test_a_client_that_is_away_gets_nothing_until_it_is_back(top, two):
    a, b = two
    with top.node.lock:
        top.node.router.set_away(a.link, True)
    ask(top, 1, 2, 3, 4)
    assert (a.read(), b.read(), waiting(top)) == ([], [1, 2], 2)
    with top.node.lock:
        top.node.router.set_away(a.link, False)
    top.asks.answerers_changed()
    assert (a.read(), b.read()) == ([3, 4], [])


def test_one_that_was_away_has_what_it_had(top, two):
    a, b = two
    ask(top, 1, 2, 3, 4)
    a.read(), b.read()
    with top.node.lock:
        top.node.router.set_away(a.link, True)
    ask(top, 5)
    with top.node.lock:
        top.node.router.set_away(a.link, False)
    ask(top, 6)
    assert (a.read(), b.read(), waiting(top)) == ([], [], 2)
    assert_balanced(top, a, b)


# Forged


def test_an_answer_to_any_that_stands_for_more_is_refused(top, two):
    a, b = two
    (answer,) = ask(top, 1)
    a.read()
    a.raw.send((ANSWER, ("a",), "x", None, [(1, SPLIT, 2)]))
    assert type(top.next_closed()[1]) is ProtocolError
    assert type(error_of(answer)) is AnswererLost


@pytest.mark.parametrize("status", [8, -1, 1 << 62])
def test_an_answer_of_no_sort_is_refused(top, two, status):
    a, _ = two
    (answer,) = ask(top, 1)
    a.read()
    a.raw.send((ANSWER, ("a",), "x", None, [(1, status)]))
    assert type(top.next_closed()[1]) is ProtocolError
    assert type(error_of(answer)) is AnswererLost


def test_a_second_answer_is_refused_also_of_one_that_has_gone_on(top, two):
    a, b = two
    (answer,) = ask(top, 1)
    a.read()
    a.raw.send((ANSWER, ("a",), "x", None, [(1, NO_ANSWERER, "not here"), (1, VALUE, "late")]))
    assert type(top.next_closed()[1]) is ProtocolError
    assert b.read() == [1]
    b.answer(1)
    assert answer.result(CEILING) == 1


STATUSES = st.sampled_from([VALUE, RAISED, NO_ANSWERER, LOST, CANCELLED, OVERDUE, REFUSED, SPLIT, 8, -1])
RESTS = st.sampled_from(
    [(), ("why",), (None,), (1,), ("p", "n", 1, False), ("p", "n", 1, True), ("p", "n", None, None), (-1,)]
)
WHO = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2)),
    st.tuples(st.just("ask"), st.integers(0, 2)),
    st.tuples(st.just("asks"), WHO),
    st.tuples(st.just("say"), WHO, st.integers(0, 5), STATUSES, RESTS, st.sampled_from(["x", "x", "y"])),
    st.tuples(st.just("say"), WHO, st.integers(0, 5), STATUSES, RESTS, st.just("x")),
    st.tuples(st.just("look")),
    st.tuples(st.just("answers"), WHO, st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("cancels"), WHO, st.integers(1, 5)),
    st.tuples(st.just("close"), WHO),
)
END = threading.Event()


def is_there(place, worker):
    """Whether the link still is, after all that it has sent was handled."""
    heard = threading.Event()
    place.on(f"heard {worker.pid}", lambda message: heard.set())
    place.node.dispatcher  # noqa: B018
    try:
        worker.raw.send((1, (worker.pid,), f"heard {worker.pid}", None, [()]))
    except OSError:
        pass
    until = time.monotonic() + CEILING
    while time.monotonic() < until:
        if heard.wait(0.001):
            return True
        if worker.link not in place.node.router.neighbours:
            return False
    raise AssertionError("neither handled nor refused")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=25))
@example(steps=[("ask", 0), ("say", 0, 0, VALUE, ("why",), "y")])  # by another name than it was asked by
def test_whatever_neighbours_say_each_request_ends_once_and_only_their_own_link_with_it(steps):
    place = Place("top")
    made = []

    def raw(*args, **how):
        made.append(Raw(*args, **how))
        return made[-1]

    try:
        workers = [Worker(place, raw, pid) for pid in "abc"]
        pending = []
        asked = 0
        for step, *items in steps:
            workers = [each for each in workers if is_there(place, each)]
            if step == "ask":
                pending.append(place.ask_any_async("x", len(pending), retry=items[0]))
            elif step == "look":
                place.look_at_deadlines()
            elif step == "cancel" and pending:
                pending[items[0] % len(pending)].cancel()
            elif workers and step not in ("ask", "cancel"):
                worker = workers[items[0] % len(workers)]
                if step == "say":
                    _, number, status, rest, event = items
                    record = (ANSWER, (worker.pid,), event, None, [(number or 1, status, *rest)])
                    worker.raw.send(record)
                elif step == "asks":
                    asked += 1
                    worker.raw.send((REQUEST_ANY, (worker.pid,), "x", None, [(asked, 0, "theirs")]))
                elif step == "answers":
                    worker.answers(items[1])
                elif step == "cancels":
                    worker.raw.send((CANCEL, (items[1],)))
                else:
                    worker.raw.socket.close()
        workers = [each for each in workers if is_there(place, each)]
        assert_balanced(place, *workers)
        for worker in workers:
            worker.raw.socket.close()
        while place.node.router.neighbours:
            _, error = place.next_closed()
            assert error is None or isinstance(error, ProtocolError | OSError), error
        for each in pending:
            assert each.cancelled() or (each.exception(CEILING), each.done())[1]
        nothing_is_left(place)
        assert place.errors.empty()
        assert place.exits == []
    finally:
        for each in made:
            each.socket.close()
            each._ours.close()
        place.end()
