"""Requests on their way: from here, through here, and what ends them."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from asked import answer, answered, asked, passed, settled
from places import CEILING, join, settle

from ipevents._ask import asking as module
from ipevents._ask.answering import own_job
from ipevents._ask.calls import ask_async
from ipevents._ask.target import Target
from ipevents._core import requests as core
from ipevents._core.messages import (
    ANSWER,
    ANSWERS,
    CANCEL,
    ONLINE,
    REQUEST,
    REQUEST_ALL,
)
from ipevents._core.outbox import Outbox
from ipevents._core.requests import CANCELLED, LOST, NO_ANSWERER, REFUSED, SPLIT, VALUE
from ipevents._core.state import Stage
from ipevents._exceptions import (
    AnswererLost,
    Closed,
    NoAnswerer,
    RequestTimeout,
    WouldDeadlock,
)

LAST = (1 << 63) - 1


# One answer


def test_a_child_a_grandchild_and_a_parent_answer(line):
    top, middle, leaf = line
    for place in line:
        place.answer("who", lambda message, *args, pid=place.pid, **kwargs: (pid, message.pids, args, kwargs))
    assert top.ask(["middle"], "who", 1, a=2) == ("middle", ("top", "middle"), (1,), {"a": 2})
    assert top.ask(["leaf", "middle"], "who") == ("leaf", ("top", "middle", "leaf"), (), {})
    assert leaf.ask(["middle"], "who") == ("middle", ("leaf", "middle"), (), {})
    assert leaf.ask(["top", "middle"], "who") == ("top", ("leaf", "middle", "top"), (), {})
    assert leaf.ask_top("who") == ("top", ("leaf", "middle", "top"), (), {})
    assert top.ask_top("who")[0] == "top"
    assert middle.ask(["middle"], "who") == ("middle", ("middle",), (), {})


@pytest.mark.parametrize("value", [None, b"x" * (10 << 20), ["nested", {"a": (1,)}]], ids=range(3))
def test_values_pass_through_a_process_between(line, value):
    top, _, leaf = line
    leaf.answer("echo", lambda message, value: value)
    assert top.ask(["leaf", "middle"], "echo", value) == value


def test_what_is_raised_passes_through_as_well(line):
    top, _, leaf = line

    def fails(message):
        raise LookupError("mine")

    leaf.answer("x", fails)
    with pytest.raises(LookupError, match="mine") as caught:
        top.ask(["leaf", "middle"], "x")
    assert caught.value.__cause__.pid == "leaf"
    assert "fails" in caught.value.__cause__.traceback


def test_the_answer_says_who_has_given_it(line):
    top, _, leaf = line
    leaf.answer("x", lambda message: 1)
    pending = top.ask_async(["leaf", "middle"], "x")
    assert pending.result(CEILING) == 1
    assert pending.pid == "leaf"


# Nobody answers


ROUTES = {"child": ["middle"], "grandchild": ["leaf", "middle"]}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_process_that_does_not_answer_says_so(line, route):
    top, middle, leaf = line
    with pytest.raises(NoAnswerer, match="does not answer 'x'") as caught:
        top.ask(route, "x")
    assert caught.value.pid == route[0]
    for place in (middle, leaf):
        place.listen("x")
    settle(*line)
    with pytest.raises(NoAnswerer, match="only listens to 'x'"):
        top.ask(route, "x")


@pytest.mark.parametrize("route", [["nobody"], ["leaf", "nobody"]])
def test_a_process_that_there_is_not_answers_nothing(line, route):
    with pytest.raises(NoAnswerer) as caught:
        line[0].ask(route, "x")
    assert caught.value.__cause__ is not None


def test_a_route_that_ends_on_its_way_is_reported_by_the_process_there(line):
    with pytest.raises(NoAnswerer, match="'nobody' is no parent or child of middle"):
        line[0].ask(["nobody", "middle"], "x")


def test_an_own_event_that_is_not_answered(places):
    with pytest.raises(NoAnswerer, match="does not answer 'x' itself"):
        places("top").ask(["top"], "x")


def test_after_unanswer_nobody_answers(pair):
    parent, child = pair
    child.answer("x", lambda message: 1)
    assert parent.ask(["child"], "x") == 1
    child.asks.answering.remove("x")
    with pytest.raises(NoAnswerer):
        parent.ask(["child"], "x")


def test_the_grand_master_that_does_not_answer_says_so(line):
    with pytest.raises(NoAnswerer):
        line[2].ask_top("x")


# Forged requests


BAD_PAYLOADS = [("x",), b"short", (1 << 63, 0), (1 << 63).to_bytes(8, "big") + bytes(8) + b"x"]


@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=range(4))
@pytest.mark.parametrize("to", [("other", ("other",)), None], ids=["to one", "to all"])
def test_a_forged_request_ends_its_own_link_only_and_leaves_nothing_in_the_next(between, payload, to):
    place, _, one, other = between
    one.send((REQUEST if to else REQUEST_ALL, ("one",), "x", to, [(5, 0), payload]))
    assert place.next_closed()[0] == "one"
    assert place.asks.requests.count(other.link) == 0
    pending = place.ask_async(["other"], "x")
    answer(other, asked(other)[0], "value")
    assert pending.result(CEILING) == "value"
    assert place.closed.empty()


@pytest.mark.parametrize("deadline", [LAST, -LAST, -(1 << 63), 1])
@pytest.mark.parametrize("is_plain", [True, False])
def test_a_request_with_any_deadline_is_passed_on(between, deadline, is_plain):
    place, _, one, other = between
    packed = (7).to_bytes(8, "big") + deadline.to_bytes(8, "big", signed=True) + b"a pickle"
    passed(one, (7, deadline) if is_plain else packed)
    number, passed_on = asked(other)
    assert number == 1
    assert (passed_on == deadline) == (deadline > 0)
    assert place.closed.empty()


# What passes through


def test_one_number_of_two_askers_is_two_requests(between):
    place, top, one, other = between
    top.send((REQUEST, ("top",), "x", ("other", ("other",)), [(5, 0)]))
    of_top = asked(other)[0]
    passed(one, (5, 0), (6, 0))
    of_one = asked(other)[0]
    assert len({of_top, of_one, asked(other)[0]}) == 3
    top.send((CANCEL, (5,)))
    other.wait_for((CANCEL, (of_top,)))
    answer(other, of_one, "for one")
    assert answered(one) == (5, VALUE, ("for one",))
    answer(other, of_top, "for top")
    assert answered(top) == (5, VALUE, ("for top",))
    assert place.closed.empty()


def test_a_number_of_any_size_is_that_of_its_asker_on_the_way_back(between):
    _, _, one, other = between
    packed = LAST.to_bytes(8, "big") + bytes(8) + b"a pickle"
    passed(one, (LAST, 0, "plain"), packed)
    assert [other.next_payload()[1] for _ in range(2)] == [
        (1, 0, "plain"),
        (2).to_bytes(8, "big") + bytes(8) + b"a pickle",
    ]
    answer(other, 1, "first")
    other.send((ANSWER, ("other",), "x", None, [(2).to_bytes(8, "big") + bytes(8) + b"a value"]))
    assert answered(one) == (LAST, VALUE, ("first",))
    assert one.next_payload() == (ANSWER, LAST.to_bytes(8, "big") + bytes(8) + b"a value")


def test_of_a_process_that_is_gone_the_asker_behind_this_one_is_told(between):
    _, _, one, other = between
    passed(one, (5, 0))
    asked(other)
    other.socket.close()
    assert answered(one) == (5, LOST, ("other", "", None, None))


def test_for_all_that_were_to_come_from_there_it_is_told_once(between):
    _, _, one, other = between
    passed(one, (5, 0))
    number, _ = asked(other)
    answer(other, number, 3, status=SPLIT)
    answer(other, number, "value")
    assert [answered(one), answered(one)] == [(5, SPLIT, (3,)), (5, VALUE, ("value",))]
    other.socket.close()
    assert answered(one) == (5, SPLIT, (-2,))
    assert answered(one) == (5, LOST, ("other", "", None, None))


def test_what_nobody_waits_for_any_more_is_cancelled_further_on(between):
    _, _, one, other = between
    passed(one, (5, 0))
    number, _ = asked(other)
    one.send((CANCEL, (5,)))
    other.wait_for((CANCEL, (number,)))
    answer(other, number, status=CANCELLED)
    assert answered(one) == (5, CANCELLED, ())


def test_each_request_is_cancelled_once_whoever_wants_that_how_often(between):
    place, _, one, other = between
    pending = place.ask_async(["other"], "x")
    own, _ = asked(other)
    passed(one, (5, 0), (6, 0))
    first, second = asked(other)[0], asked(other)[0]
    one.send((CANCEL, (5, 5)), (CANCEL, (5,)))
    settled(place, one)
    place.asks.tell_cancelled(pending)
    place.asks.tell_cancelled(pending)
    assert pending.cancel()
    one.socket.close()
    place.next_closed()
    place.ask_async(["other"], "x")  # what comes before this request is all that was cancelled
    records = []
    while not records or records[-1][0] != REQUEST:
        records += other.next_records()
    cancelled = [record for record in records if record[0] == CANCEL]
    assert cancelled == [(CANCEL, (number,)) for number in (first, own, second)]


class Channel:
    """A control channel to a child, or to the parent."""

    def __init__(self):
        self.records = []

    def put(self, record):
        self.records.append(record)


def test_a_cancel_takes_the_control_channel_where_there_is_one(between):
    place, _, one, other = between
    rung = []
    place.node.timers.ring = lambda: rung.append(True)
    other.link.channel = channel = Channel()
    pending = place.ask_async(["other"], "x")
    own = asked(other)[0]
    passed(one, (5, 0))
    passed_on = asked(other)[0]
    pending.cancel()
    one.send((CANCEL, (5,)))
    settled(place, one)
    assert channel.records == [(CANCEL, (own,)), (CANCEL, (passed_on,))]
    assert len(rung) == 2


def test_of_an_asker_that_is_gone_all_is_cancelled_further_on(between):
    place, _, one, other = between
    passed(one, (5, 0), (6, 0))
    first, second = asked(other)[0], asked(other)[0]
    one.socket.close()
    other.wait_for((CANCEL, (second, first)))  # the last one first
    answer(other, first, "late")  # it is nobody's, and the link goes on
    pending = place.ask_async(["other"], "x")
    answer(other, asked(other)[0], "value")
    assert pending.result(CEILING) == "value"


def test_an_answer_to_an_asker_that_is_gone_is_not_for_the_next_at_its_link(between):
    """Another process at the link numbers its requests anew, and so may wait for the same number."""
    place, _, one, other = between
    passed(one, (1, 0))
    first, _ = asked(other)
    with place.node.lock:
        place.asks.link_gone(one.link)
    passed(one, (1, 0))
    second, _ = asked(other)
    answer(other, first, "for the one that is gone")
    answer(other, second, "for the next")
    assert answered(one) == (1, VALUE, ("for the next",))
    assert place.asks.stats()["late"] == 1
    assert place.closed.empty()


@pytest.mark.parametrize("left", [1, 3])
def test_a_process_that_is_gone_is_not_lost_for_the_next_at_the_link_of_the_asker(between, left):
    place, _, one, other = between
    passed(one, (1, 0))
    number, _ = asked(other)
    if left > 1:
        answer(other, number, left - 1, status=SPLIT)
        assert answered(one) == (1, SPLIT, (left - 1,))
    with place.node.lock:
        place.asks.link_gone(one.link)
    other.socket.close()
    assert place.next_closed()[0] == "other"
    one.send((REQUEST, ("one",), "x", ("nobody", ("nobody",)), [(2, 0)]))
    assert answered(one)[:2] == (2, NO_ANSWERER)


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_request_whose_number_is_zero_does_no_harm_to_another_link(between, is_answered):
    """No process of ours sends it. It may be refused, or be a number as any other."""
    place, _, one, other = between
    passed(one, (0, 0))
    while not place.asks.requests.count(other.link) and place.closed.empty():
        pass
    is_passed = place.closed.empty()
    pending = place.ask_async(["other"], "x")
    numbers = [asked(other)[0] for _ in range(1 + is_passed)]
    if is_answered:
        other.send((ANSWER, ("other",), "x", None, [(number, VALUE, "value") for number in numbers]))
        assert pending.result(CEILING) == "value"
    else:
        other.socket.close()
        while place.next_closed()[0] != "other":
            pass
        assert type(pending.exception(CEILING)) is AnswererLost


def test_a_request_that_cannot_go_on_comes_back_as_an_error(between):
    place, _, one, other = between
    one.send((REQUEST, ("one",), "x", ("nobody", ("nobody",)), [(5, 0)]))
    number, status, (why,) = answered(one)
    assert (number, status) == (5, NO_ANSWERER)
    assert "'nobody' is no parent or child of me" in why
    assert place.asks.requests.count(other.link) == 0


def test_a_request_that_the_next_process_does_not_take_comes_back_as_an_error(between, raw):
    place, _, one, _ = between
    small = raw(place, "small", limit=10_000)
    one.send((REQUEST, ("one",), "x", ("small", ("small",)), [bytes(7) + b"\5" + bytes(8) + b"x" * 50_000]))
    number, status, (why,) = answered(one)
    assert (number, status) == (5, NO_ANSWERER)
    assert "socket.maxMessage" in why
    assert place.asks.requests.count(small.link) == 0


# What waits for the next process of a child


class Restarting:
    """A child that has ended, and is about to be started again: what is sent waits for its next process."""

    name, handle, alive, is_over, title = "worker", None, False, False, "child worker"

    def __init__(self, child):
        self.pid = child.pid
        self.link = child.link
        self.outbox = Outbox()

    def next_outbox(self):
        return self.outbox


@pytest.fixture
def restarting(places, raw):
    """A place, its child that is only a socket, and a function that asks the next process of that."""
    place = places("top")
    child = raw(place)
    state = Restarting(child)
    return place, child, lambda: ask_async(place.asks, Target(child=state), "x", (), {}, None)


def starts(place, child):
    """As the supervisor does: the last process is gone, the next one is there."""
    with place.node.lock:
        place.asks.link_gone(child.link, goes_on=True)
        place.asks.child_started(child.link)


def cancels_before(place, child, count):
    """The cancelled requests that the child is told of before the next request, which has this number."""
    pending = place.ask_async(["raw"], "x")
    assert list(pending.places) == [(child.link, count)]
    records = []
    while not records or records[-1][0] != REQUEST:
        records += child.next_records()
    return [record for record in records if record[0] == CANCEL]


def test_what_was_cancelled_while_it_waits_for_the_next_process_is_cancelled_there(restarting):
    place, child, ask_next = restarting
    first, second, third = ask_next(), ask_next(), ask_next()
    assert first.cancel()
    assert third.cancel()
    starts(place, child)
    assert cancels_before(place, child, 4)[-1] == (CANCEL, (1, 3))
    answer(child, 1, status=CANCELLED)
    answer(child, 2, "value")
    assert second.result(CEILING) == "value"
    assert place.closed.empty()


def test_over_the_channel_of_the_next_process_it_is_told_that(restarting):
    place, child, ask_next = restarting
    last, following = Channel(), Channel()
    place.node.timers.ring = lambda: None
    child.link.channel = last
    assert ask_next().cancel()
    child.link.channel = following
    starts(place, child)
    assert following.records == [(CANCEL, (1,))]
    with place.node.lock:
        place.asks.link_gone(child.link)
        place.asks.child_started(child.link)
    assert following.records == [(CANCEL, (1,))]


def test_a_process_that_starts_is_told_nothing_where_nothing_was_cancelled(restarting):
    place, child, ask_next = restarting
    pending = ask_next()
    starts(place, child)
    assert cancels_before(place, child, 2) == []
    answer(child, 1, "value")
    assert pending.result(CEILING) == "value"


# Too many


def test_more_that_pass_through_are_refused(between, monkeypatch):
    monkeypatch.setattr(core, "MAX_OPEN", 2)
    _, _, one, other = between
    passed(one, *[(number, 0) for number in range(11, 15)])
    assert [asked(other), asked(other)] == [(1, 0), (2, 0)]
    assert [answered(one)[:2] for _ in range(2)] == [(13, REFUSED), (14, REFUSED)]
    answer(other, 1, "value")
    assert answered(one) == (11, VALUE, ("value",))
    passed(one, (15, 0))
    assert asked(other)[0] == 3


# Where one may not ask


def test_no_request_waits_in_a_listener(pair):
    parent, child = pair
    child.answer("x", lambda message: 1)
    caught = queue.Queue()

    def listener(message):
        try:
            parent.ask(["child"], "x")
        except WouldDeadlock as exc:
            caught.put(exc)
        caught.put(parent.ask_async(["child"], "x"))

    parent.on("go", listener)
    parent.node.events.emit("go", (), {})
    assert type(caught.get(timeout=CEILING)) is WouldDeadlock
    assert caught.get(timeout=CEILING).result(CEILING) == 1


def test_both_sides_ask_each_other_from_threads(pair):
    parent, child = pair
    for place in pair:
        place.answer("half", lambda message, n: n // 2, threads=1)
    child.answer("both", lambda message, n: child.ask(["parent"], "half", n) + 1, threads=2)
    assert [parent.ask(["child"], "both", n) for n in range(0, 20, 2)] == list(range(1, 11))


def test_no_request_from_inside_the_state_lock(pair):
    parent, _ = pair
    with parent.node.lock, pytest.raises(WouldDeadlock):
        parent.ask_async(["child"], "x")


# Own requests


def test_an_own_request_to_threads_is_answered_there(places):
    place = places("top").answer("x", lambda message: threading.current_thread().name, threads=1)
    assert place.ask(["top"], "x") == "ipevents-answers-x-1"


@pytest.fixture
def own(places):
    """A place that answers "x" in a thread, when it is let go; and what it has begun."""
    place = places("top")
    begun, ends = queue.Queue(), threading.Event()

    def function(message, value):
        begun.put(value)
        assert ends.wait(CEILING)
        return value

    place.answer("x", function, threads=1)
    yield place, begun, ends
    ends.set()


def test_an_own_request_has_a_deadline_too(own):
    place, begun, _ = own
    with pytest.raises(RequestTimeout):
        place.ask(["top"], "x", 1, timeout=0.01)
    pending = place.ask_async(["top"], "x", 2, timeout=0.01)
    until = time.monotonic() + 0.01
    while time.monotonic() <= until:
        pass
    place.look_at_deadlines()
    assert type(pending.exception(0)) is RequestTimeout


def test_an_own_request_that_was_cancelled_is_never_begun(own):
    place, begun, ends = own
    first, second, third = [place.ask_async(["top"], "x", number) for number in (1, 2, 3)]
    assert begun.get(timeout=CEILING) == 1
    assert second.cancel()
    ends.set()
    assert (first.result(CEILING), third.result(CEILING)) == (1, 3)
    assert begun.get(timeout=CEILING) == 3


def test_a_stop_ends_an_own_request_whose_function_does_not_return(own):
    place, begun, _ = own
    pending = place.ask_async(["top"], "x", 1)
    begun.get(timeout=CEILING)
    place.asks.end_all()
    assert type(pending.exception(0)) is Closed


def test_an_own_request_that_meets_the_stop_is_not_begun(own, monkeypatch):
    place, begun, ends = own
    pid = place.node.router.pid

    def stops(*args):
        place.node.stage = Stage.STOPPING
        place.asks.end_all()
        return own_job(*args)

    monkeypatch.setattr(module, "own_job", stops)
    ends.set()
    with pytest.raises(Closed):
        place.ask([pid], "x", 1)
    place.node.stage = Stage.OPEN
    monkeypatch.undo()
    assert place.ask([pid], "x", 2) == 2
    assert begun.get(timeout=CEILING) == 2


def test_an_own_request_whose_function_ends_the_process_ends_with_the_stop(places):
    place = places("top")

    def function(message):
        raise SystemExit(3)

    place.answer("x", function)
    pending = place.ask_async(["top"], "x")
    assert [exc.code for exc in place.exits] == [3]
    place.asks.end_all()
    assert type(pending.exception(0)) is Closed


def test_ctrl_c_in_an_own_request_is_raised_and_leaves_nothing_behind(places):
    place = places("top")

    def function(message):
        raise KeyboardInterrupt

    place.answer("x", function)
    with pytest.raises(KeyboardInterrupt):
        place.ask(["top"], "x")
    assert place.asks.stats()["open"] == 0
    assert not place.node.dispatcher.runs_here()


# Requests to all


def test_all_that_answer_are_asked_wherever_they_are_but_not_the_asker(places):
    top, left, right, leaf, deaf = (places(pid) for pid in ("top", "left", "right", "leaf", "deaf"))
    top.node.announced = True
    for place in (top, left, right, leaf):
        place.answer("who", lambda message, n, pid=place.pid: pid * n)
    join(top, left)
    join(top, right)
    join(left, leaf)
    join(right, deaf)
    settle(top, left, leaf)
    settle(top, right, deaf)
    assert dict(top.ask_all("who", 2)) == {"left": "leftleft", "right": "rightright", "leaf": "leafleaf"}
    assert dict(leaf.ask_all("who", 1)) == {"left": "left", "right": "right", "top": "top"}
    assert dict(deaf.ask_all("who", 1)) == {pid: pid for pid in ("top", "left", "right", "leaf")}
    for place in (top, left, right, leaf, deaf):
        assert place.asks.stats()["open"] == 0
        assert all(place.asks.requests.count(link) == 0 for link in place.links)


def test_a_process_that_goes_is_lost_and_the_others_answer(line, raw):
    top, middle, leaf = line
    gone = raw(middle, "gone")
    gone.send((ONLINE, ("gone",)), (ANSWERS, "who", 1, 1))
    settled(middle, gone)
    leaf.answer("who", lambda message: "leaf")
    middle.answer("who", lambda message: "middle")
    settle(top, middle, leaf)
    found = top.ask_all("who")
    asked(gone)
    gone.socket.close()
    values = [value for _, value in found]
    assert sorted(value for value in values if type(value) is str) == ["leaf", "middle"]
    (lost,) = [value for value in values if type(value) is not str]
    assert (type(lost), lost.pid) == (AnswererLost, "gone")
    assert top.asks.stats()["open"] == 0


def test_a_process_between_that_goes_is_lost_together_with_all_below(places, raw):
    top = places("top")
    middle, other = raw(top, "middle"), raw(top, "other")
    for child in (middle, other):
        child.send((ONLINE, (child.pid,)), (ANSWERS, "x", 3, 3))
        settled(top, child)
    found = top.ask_all("x")
    number, _ = asked(middle)
    middle.send((ANSWER, ("middle",), "x", None, [(number, SPLIT, 2), (number, VALUE, "one")]))
    middle.socket.close()
    number, _ = asked(other)
    answer(other, number, "other")
    values = list(found)
    assert sorted(str(value) for _, value in values if isinstance(value, str)) == ["one", "other"]
    assert [type(value) for _, value in values if not isinstance(value, str)] == [AnswererLost]


@pytest.mark.parametrize("left", [1, 2, 3, 10])
def test_one_that_stands_for_several_is_lost_behind_a_process_and_no_link_ends(places, raw, left):
    top, middle = places("top"), places("middle")
    join(top, middle)
    gone = raw(middle, "gone")
    gone.send((ONLINE, ("gone",)), (ANSWERS, "x", left, left))
    settled(middle, gone)
    settle(top, middle)
    found = top.ask_all("x")
    number, _ = asked(gone)
    gone.send((ANSWER, ("gone",), "x", None, [(number, SPLIT, left), (number, VALUE, "own")]))
    gone.socket.close()
    values = [value for _, value in found]
    assert [value for value in values if isinstance(value, str)] == ["own"]
    assert [type(value) for value in values if not isinstance(value, str)] == [AnswererLost]
    assert top.asks.stats()["open"] == top.asks.requests.count(top.links[0]) == 0
    middle.answer("y", lambda message: 1)
    assert top.ask(["middle"], "y") == 1
    assert top.closed.empty()


def test_where_nobody_answers_nothing_comes(line):
    for place in line:
        assert list(place.ask_all("x")) == []


def test_what_one_of_them_raises_is_its_value(line):
    top, middle, leaf = line

    def fails(message):
        raise LookupError("mine")

    middle.answer("x", fails)
    leaf.answer("x", lambda message: 1)
    settle(*line)
    values = dict(top.ask_all("x"))
    assert (type(values["middle"]), values["leaf"]) == (LookupError, 1)


# What is counted


def test_what_became_of_requests_is_counted(pair):
    parent, child = pair
    child.answer("x", lambda message: 1)
    parent.ask(["child"], "x")
    with pytest.raises(NoAnswerer):
        parent.ask(["child"], "y")
    assert parent.asks.stats() == {
        "requests": 2,
        "answered": 2,
        "lost": 0,
        "late": 0,
        "open": 0,
        "carriedOut": 0,
        "retried": 0,
    }
    assert child.asks.stats()["carriedOut"] == 1


def test_another_life_begins_without_the_requests_of_the_last(pair):
    parent, _ = pair
    link = parent.links[0]
    parent.ask_async(["child"], "x")
    parent.asks.end_all()
    with parent.node.lock:
        parent.asks.renew()
    assert parent.asks.stats()["open"] == 0
    assert parent.asks.requests.count(link) == 0
