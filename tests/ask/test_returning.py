"""Answers that come: whose they are, where they go on, and what is said of those that nobody asked for."""

from __future__ import annotations

import pytest
from asked import answer, answered, asked, passed, settled
from crews import Worker, assert_balanced, waiting
from places import CEILING, FULL, Raw, free, jam

from ipevents._ask import sends
from ipevents._core.messages import ANSWER, REQUEST
from ipevents._core.requests import NO_ANSWERER, REFUSED, SPLIT, VALUE
from ipevents._exceptions import AnswererLost, ProtocolError

# Forged answers


FORGED = {
    "of no request": lambda number: [(ANSWER, ("raw",), "x", None, [(number + 1, VALUE, 1)])],
    "twice": lambda number: [(ANSWER, ("raw",), "x", None, [(number, VALUE, 1), (number, VALUE, 2)])],
    "of a sort that there is not": lambda number: [(ANSWER, ("raw",), "x", None, [(number, 8)])],
    "that stands for no number": lambda number: [(ANSWER, ("raw",), "x", None, [(number, SPLIT, "1")])],
    "that stands for nothing": lambda number: [(ANSWER, ("raw",), "x", None, [(number, SPLIT)])],
    "that stands for too many": lambda number: [(ANSWER, ("raw",), "x", None, [(number, SPLIT, 1 << 40)])],
    "that stands for fewer than none": lambda number: [(ANSWER, ("raw",), "x", None, [(number, SPLIT, -2)])],
    "whose number is no number": lambda number: [(ANSWER, ("raw",), "x", None, [("7", VALUE, 1)])],
    "whose path is no path": lambda number: [(ANSWER, ["raw"], "x", None, [(number, VALUE, 1)])],
    "whose event is no name": lambda number: [(ANSWER, ("raw",), {}, None, [(number, VALUE, 1)])],
    "whose kind is no number": lambda number: [([ANSWER], ("raw",), "x", None, [(number, VALUE, 1)])],
    "without numbers": lambda number: [(ANSWER, ("raw",), "x", None, [("x",)])],
    "with a route": lambda number: [(ANSWER, ("raw",), "x", ("a", ("b",)), [(number, VALUE, 1)])],
    "from a stranger": lambda number: [(ANSWER, ("stranger",), "x", None, [(number, VALUE, 1)])],
    "of the library's own event": lambda number: [(ANSWER, ("raw",), "online", None, [(number, VALUE, 1)])],
    "without payloads": lambda number: [(ANSWER, ("raw",), "x", None, [])],
    "with no list of payloads": lambda number: [(ANSWER, ("raw",), "x", None, ((number, VALUE, 1),))],
    "with a name too many": lambda number: [(ANSWER, ("raw",), ["x", "x"], None, [(number, VALUE, 1)])],
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_answer_ends_that_link_and_no_other(places, raw, name):
    place = places("top")
    forger, honest = raw(place), raw(place, "honest")
    pending, other = place.ask_async(["raw"], "x"), place.ask_async(["honest"], "x")
    forger.send(*FORGED[name](asked(forger)[0]))
    closed, error = place.next_closed()
    assert closed == "raw"
    assert isinstance(error, ProtocolError)
    assert pending.exception(CEILING) is None or type(pending.exception()) is AnswererLost
    answer(honest, asked(honest)[0], "value")
    assert other.result(CEILING) == "value"
    assert place.closed.empty()


def test_an_answer_from_a_link_that_never_got_the_request_is_refused(places, raw):
    place = places("top")
    forger, honest = raw(place, "forger"), raw(place, "honest")
    pending = place.ask_async(["honest"], "x")
    number, _ = asked(honest)
    answer(forger, number, "forged")
    assert place.next_closed()[0] == "forger"
    answer(honest, number, "value")
    assert pending.result(CEILING) == "value"


def test_an_answer_from_above_to_what_was_not_asked_there_is_refused(between):
    place, top, one, _ = between
    pending = place.ask_async(["one"], "x")
    number, _ = asked(one)
    answer(top, number, "forged")
    assert place.next_closed()[0] == "top"
    answer(one, number, "value")
    assert pending.result(CEILING) == "value"


@pytest.mark.parametrize("forged", [99, 0, "x", None], ids=repr)
def test_good_answers_before_a_forged_one_in_a_frame_arrive(between, forged):
    place, _, one, other = between
    pending = place.ask_async(["other"], "x")
    number, _ = asked(other)
    passed(one, (7, 0))
    passed_on = asked(other)[0]
    payloads = [(number, VALUE, "mine"), (passed_on, VALUE, "of one"), (forged, VALUE, "forged")]
    other.send((ANSWER, ("other",), "x", None, payloads))
    assert place.next_closed()[0] == "other"
    assert pending.result(CEILING) == "mine"
    assert answered(one) == (7, VALUE, ("of one",))


# On the way back


def test_an_answer_goes_back_where_the_request_came_from(between):
    place, top, one, other = between
    top.send((REQUEST, ("top",), "x", ("other", ("other",)), [(5, 0, "top")]))
    passed(one, (6, 0, "one"))
    pending = place.ask_async(["other"], "x", "own")
    numbers = {}
    for _ in range(3):
        _, payload = other.next_payload()
        numbers[payload[2]] = payload[0]
    assert sorted(numbers.values()) == [1, 2, 3]
    for name in ("one", "top", "own"):
        answer(other, numbers[name], name)
    assert answered(one) == (6, VALUE, ("one",))
    assert answered(top) == (5, VALUE, ("top",))
    assert pending.result(CEILING) == "own"


def test_an_answer_that_the_asker_does_not_take_becomes_an_error_on_its_way(between, raw):
    place, _, _, other = between
    small = raw(place, "small", limit=10_000)
    small.send((REQUEST, ("small",), "x", ("other", ("other",)), [(5, 0), (6, 0)]))
    first, second = asked(other)[0], asked(other)[0]
    answer(other, first, "x" * 50_000)
    answer(other, second, "short")
    number, status, (why,) = answered(small)
    assert (number, status) == (5, REFUSED)
    assert "is larger than it takes" in why
    assert answered(small) == (6, VALUE, ("short",))


def test_an_answer_without_room_on_its_way_becomes_an_error(monkeypatch, places, raw):
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", FULL)
    monkeypatch.setattr("ipevents._core.outbox.FRAME_BYTES", 1)
    place = places("me")
    one, other = raw(place, "one"), raw(place, "other")
    passed(one, *[(number, 0) for number in range(1, FULL + 3)])
    numbers = [asked(other)[0] for _ in range(FULL + 2)]
    jam(place, one.link)
    for number in numbers:
        answer(other, number, "value")
    settled(place, other)
    free(place, one.link)
    found = [answered(one)[1] for _ in range(FULL + 2)]
    assert found == [VALUE] * FULL + [REFUSED] * 2


def test_one_that_asks_on_through_here_and_never_reads_is_hung_up_on(monkeypatch, places, raw):
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", FULL)
    monkeypatch.setattr("ipevents._core.outbox.FRAME_BYTES", 1)
    monkeypatch.setattr(sends, "MOST_WAITING", 2 * FULL)
    place = places("me")
    one, other = raw(place, "one"), raw(place, "other")
    jam(place, one.link)
    for number in range(1, 2 * FULL + 3):
        passed(one, (number, 0))
        answer(other, asked(other)[0], "value")
        settled(place, other)
    assert place.next_closed()[0] == "one"


# Answers to requests to any


@pytest.fixture
def above(places):
    """A place, and its parent that is only a socket."""
    place = places("me")
    parent = Raw(place, "above", above=True)
    yield place, parent
    parent.socket.close()
    parent._ours.close()


@pytest.mark.parametrize("event", ["x", "another"])
def test_what_nobody_else_answers_is_answered_here_by_whatever_name_that_is_said(above, event):
    place, parent = above
    pending = place.ask_any_async("x", 1)
    number, _ = asked(parent)
    place.answer("x", lambda message, value: ("here", value))  # only since it was sent
    answer(parent, number, "nobody here", status=NO_ANSWERER, event=event)
    assert pending.result(CEILING) == ("here", 1)
    assert place.asks.stats()["requests"] == 1


@pytest.mark.parametrize("payload", [(VALUE, "value"), (REFUSED, "not now")], ids=["value", "error"])
def test_an_answer_makes_room_where_it_was_asked_for_by_whatever_name_it_comes(places, raw, payload):
    place = places("top")
    a = Worker(place, raw, "a")
    for value in range(4):
        place.ask_any_async("x", value)
    count = waiting(place)
    assert count > 0
    a.say(a.read()[0], *payload, event="another")
    assert waiting(place) < count
    assert_balanced(place, a)
