"""The answers of all: an iterator."""

from __future__ import annotations

import gc
import threading

import pytest
from places import CEILING, in_thread

from ipevents._core.messages import ANSWER, ANSWERS, CANCEL, ONLINE
from ipevents._core.requests import RAISED, SPLIT, VALUE
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    OutboxFull,
    RequestTimeout,
    Unpicklable,
    UnreadablePayload,
    WouldDeadlock,
)


@pytest.fixture
def two(places, raw):
    """A place and two children that are only sockets and answer "x"."""
    place = places("top")
    children = raw(place, "one"), raw(place, "other")
    for child in children:
        heard = threading.Event()
        place.on(f"settled {child.pid}", lambda message, heard=heard: heard.set())
        child.send((ONLINE, (child.pid,)), (ANSWERS, "x", 1, 1))
        child.send((1, (child.pid,), f"settled {child.pid}", None, [()]))
        assert heard.wait(CEILING)
    return place, *children


def answer(child, number, *args, status=VALUE):
    child.send((ANSWER, (child.pid,), "x", None, [(number, status, *args)]))


def number_of(child):
    return child.next_payload()[1][0]


def test_answers_come_in_the_order_in_which_they_arrive(two):
    place, one, other = two
    found = place.ask_all("x")
    number = number_of(one)
    assert number == number_of(other)
    answer(other, number, "first")
    assert next(found) == ("other", "first")
    answer(one, number, "second")
    assert next(found) == ("one", "second")
    assert list(found) == []
    with pytest.raises(StopIteration):
        next(found)


def test_the_iterator_waits_until_one_comes(two):
    place, one, other = two
    found = place.ask_all("x")
    values = []
    result = in_thread(lambda: values.extend(found))
    number = number_of(one)
    answer(one, number, 1)
    answer(other, number_of(other), 2)
    assert result() is None
    assert sorted(values) == [("one", 1), ("other", 2)]


def test_a_split_is_not_an_answer_of_its_own(two):
    place, one, other = two
    found = place.ask_all("x")
    number = number_of(one)
    answer(one, number, 1, status=SPLIT)
    answer(one, number, "a")
    answer(one, number, "b")
    answer(other, number, -1, status=SPLIT)
    assert list(found) == [("one", "a"), ("one", "b")]


def test_what_cannot_be_read_is_a_value_of_it_and_the_others_come(two):
    place, one, other = two
    found = place.ask_all("x")
    number = number_of(one)
    answer(one, number, "not what is sent", status=RAISED)
    answer(other, number, "value")
    values = dict(found)
    assert (type(values["one"]), values["other"]) == (UnreadablePayload, "value")


def test_a_process_that_ends_is_lost(two):
    place, one, other = two
    found = place.ask_all("x")
    answer(other, number_of(other), "value")
    one.socket.close()
    values = dict(found)
    assert (type(values["one"]), values["other"]) == (AnswererLost, "value")


def test_when_the_time_is_over_that_is_raised_once_and_those_that_have_it_are_told(two):
    place, one, other = two
    found = place.ask_all("x", timeout=0.01)
    number = number_of(one)
    with pytest.raises(RequestTimeout) as caught:
        list(found)
    assert (caught.value.seconds, caught.value.pid) == (0.01, "")
    assert list(found) == []
    one.wait_for((CANCEL, (number,)))
    number_of(other)
    other.wait_for((CANCEL, (number,)))
    answer(other, number, "late")
    settle_raw(place, other)
    assert list(found) == []
    assert place.asks.stats()["late"] == 1


def settle_raw(place, child):
    heard = threading.Event()
    place.on("settled", lambda message: heard.set())
    child.send((1, (child.pid,), "settled", None, [()]))
    assert heard.wait(CEILING)


def test_those_that_came_in_time_come_before_the_timeout(two):
    place, one, _ = two
    found = place.ask_all("x", timeout=0.01)
    answer(one, number_of(one), "value")
    settle_raw(place, one)
    assert next(found) == ("one", "value")
    with pytest.raises(RequestTimeout):
        next(found)


@pytest.mark.parametrize("how", ["close", "forget"])
def test_one_that_is_left_early_tells_those_that_have_it(two, how):
    place, one, _ = two
    found = place.ask_all("x")
    number = number_of(one)
    if how == "close":
        found.close()
        assert list(found) == []
    else:
        del found
        gc.collect()
    one.wait_for((CANCEL, (number,)))
    assert place.asks.stats()["open"] == 0


def test_one_that_is_forgotten_inside_the_state_lock_tells_them_later(two):
    place, one, _ = two
    found = place.ask_all("x")
    number = number_of(one)
    with place.node.lock:
        del found
        gc.collect()
        assert place.asks.stats()["open"] == 1
    one.wait_for((CANCEL, (number,)))
    assert place.asks.stats()["open"] == 0


def test_a_stop_ends_it_with_an_error_behind_what_came_before(two):
    place, one, _ = two
    found = place.ask_all("x")
    answer(one, number_of(one), "value")
    settle_raw(place, one)
    place.asks.end_all()
    assert next(found) == ("one", "value")
    with pytest.raises(Closed):
        next(found)
    assert list(found) == []


def test_it_does_not_wait_in_a_listener_but_gives_what_is_there(two):
    place, one, _ = two
    found = place.ask_all("x")
    answer(one, number_of(one), "value")
    settle_raw(place, one)
    results = []

    def listener(message):
        results.append(next(found))
        try:
            next(found)
        except WouldDeadlock as exc:
            results.append(type(exc))

    place.on("go", listener)
    place.node.events.emit("go", (), {})
    assert results == [("one", "value"), WouldDeadlock]
    found.close()


def test_what_cannot_be_sent_is_raised_at_the_call(two):
    place, _, _ = two
    with pytest.raises(Unpicklable):
        place.ask_all("x", threading.Lock())


def test_in_a_listener_a_full_outbox_refuses_it_and_nobody_is_asked(full):
    parent, _, link = full
    caught = []

    def listener(message):
        try:
            parent.ask_all("x")
        except OutboxFull as exc:
            caught.append(exc)

    parent.on("go", listener)
    parent.node.events.emit("go", (), {})
    assert len(caught) == 1
    assert parent.asks.stats()["open"] == 0
    assert parent.asks.requests.count(link) == 0
