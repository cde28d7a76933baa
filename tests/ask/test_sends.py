"""Requests and answers where there is no room for them, or nobody to take them."""

from __future__ import annotations

import threading

import pytest
from asked import answer, asked, request
from places import CEILING, FULL, free, in_thread, jam, join, queued, settle, watch_waits

from ipevents._ask import sends
from ipevents._core import requests as core
from ipevents._core.messages import REQUEST
from ipevents._core.outbox import OUTBOX_RECORDS
from ipevents._core.state import Stage
from ipevents._exceptions import Closed, OutboxFull, RequestError


def test_so_many_requests_may_be_open_over_a_link(places, raw, monkeypatch):
    monkeypatch.setattr(core, "MAX_OPEN", 3)
    place = places("top")
    child, _ = raw(place), raw(place, "other")
    pending = [place.ask_async(["raw"], "x") for _ in range(3)]
    with pytest.raises(OutboxFull, match="3 to .* are open"):
        place.ask_async(["raw"], "x")
    assert place.asks.stats()["open"] == 3
    assert place.ask_async(["other"], "x")  # another link
    answer(child, asked(child)[0], "value")
    assert pending[0].result(CEILING) == "value"
    assert place.ask_async(["raw"], "x")


def test_in_a_listener_a_full_outbox_refuses_the_request(full):
    parent, _, link = full
    caught = []

    def listener(message):
        try:
            parent.ask_async(["child"], "x", 1)
        except OutboxFull as exc:
            caught.append(exc)

    parent.on("go", listener)
    parent.node.events.emit("go", (), {})
    assert len(caught) == 1
    assert parent.asks.stats()["open"] == 0
    assert parent.asks.requests.count(link) == 0


def test_a_thread_of_the_program_waits_for_room_in_it(full, monkeypatch):
    parent, _, link = full
    waits = watch_waits(monkeypatch, link)
    values = []
    result = in_thread(lambda: values.append(parent.ask(["child"], "x", 5)))
    assert waits.wait(CEILING)
    free(parent, link)
    assert result() is None
    assert values == [5]


@pytest.mark.parametrize("ask", ["ask", "ask_all"])
def test_a_request_that_waits_for_room_when_the_stop_begins_is_not_sent(full, monkeypatch, ask):
    parent, _, link = full
    waits = watch_waits(monkeypatch, link)
    values = []
    call = {"ask": lambda: parent.ask(["child"], "x"), "ask_all": lambda: values.extend(parent.ask_all("x"))}
    result = in_thread(call[ask])
    assert waits.wait(CEILING)
    with parent.node.lock:
        parent.node.stage, parent.node.sends_while_stopping = Stage.STOPPING, True
    parent.asks.end_all()
    free(parent, link)
    error = result()
    assert (type(error), values) == (Closed, [])
    assert parent.asks.requests.count(link) == 0


# Answers


def test_more_answers_than_an_outbox_holds_become_errors(monkeypatch, places):
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", FULL)
    monkeypatch.setattr("ipevents._core.outbox.FRAME_BYTES", 1)
    done = threading.Event()
    parent, child = places("parent"), places("child").on("done", lambda message: done.set())
    join(parent, child)
    child.answer("x", lambda message, value: value)
    up = child.link_to(parent)
    settle(parent, child)
    jam(child, up)
    asked = [parent.ask_async(["child"], "x", number) for number in range(FULL + 3)]
    parent.send_child("child", "done")
    assert done.wait(CEILING)  # all are answered there
    free(child, up)
    errors = [each.exception(CEILING) for each in asked]
    assert errors[:FULL] == [None] * FULL
    assert [type(error) for error in errors[FULL:]] == [RequestError] * 3
    assert "more waits for the asker than its outbox holds" in str(errors[-1])


@pytest.fixture
def unread(places, monkeypatch):
    """A place and the link to a child that takes nothing, of which no more than three records may wait."""
    monkeypatch.setattr(sends, "MOST_WAITING", 3)
    place = places("top")
    link = place.make_child("raw")
    cut = []
    link.disconnect = lambda: cut.append(len(queued(place, link)))
    return place, link, cut


def test_one_that_does_not_read_its_short_answers_is_hung_up_on(unread):
    place, link, cut = unread
    for number in range(1, 10):
        with place.node.lock:
            place.asks.not_passed(link, (REQUEST, ("raw",), "x", None, [(number, 0)]), "why", None)
    assert cut == [4] * 5
    assert [record[4][0][0] for record in queued(place, link)] == [1, 2, 3, 4]


def test_of_one_that_is_gone_short_answers_are_put_nowhere(unread):
    place, link, cut = unread
    with place.node.lock:
        place.node.presence.child_gone(link, None)
    for number in range(1, 10):
        with place.node.lock:
            place.asks.not_passed(link, (REQUEST, ("raw",), "x", None, [(number, 0)]), "why", None)
    assert (cut, queued(place, link)) == ([], [])


def test_as_many_answers_may_wait_as_an_honest_asker_can_have_asked_for():
    assert sends.MOST_WAITING >= OUTBOX_RECORDS + core.MAX_OPEN


def test_an_asker_that_asks_on_and_never_reads_is_hung_up_on(asker, monkeypatch):
    monkeypatch.setattr(sends, "MOST_WAITING", 3)
    place, child = asker
    jam(place, child.link)
    # In one frame, because the connection may end in the midst of them.
    child.send(*[request((number, 0)) for number in range(1, 10)])
    assert place.next_closed()[0] == "raw"
