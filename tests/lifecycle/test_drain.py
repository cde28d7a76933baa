"""How the links of a process that stops end, one step after the other."""

from __future__ import annotations

import threading

import pytest
from places import CEILING, free, jam, join, settle

from ipevents._core.books import shown
from ipevents._core.messages import SEND_TO
from ipevents._core.state import Event, Stage, State
from ipevents._lifecycle import drain
from ipevents._platform.threads import Deadline


@pytest.fixture
def pair(places):
    """A process that stops, and its child."""
    top, child = places("top"), places("child").listen("x")
    join(top, child)
    settle(top, child)
    return top, child


def stops(place):
    """Bring a node to where ``say_goodbye`` finds it."""
    for event in (Event.START, Event.OPENED, Event.JOINED, Event.STOP):
        place.node.change(event)


class Gate:
    """A notice that does not return before the gate is opened."""

    def __init__(self, place):
        self.begun, self.go = threading.Event(), threading.Event()
        place.node.events.notify(self._wait)
        assert self.begun.wait(CEILING)

    def _wait(self):
        self.begun.set()
        assert self.go.wait(CEILING)


# What is queued


def test_what_is_queued_is_with_the_kernel_after_the_flush(pair):
    top, child = pair
    with top.node.lock:
        plan = top.node.router.plan_here(SEND_TO, "x", ("child",))
        for number in range(1000):
            assert top.link_to(child).outbox.offer(plan, (number,), 10)
    drain.flush(top.node, Deadline(CEILING))
    assert top.link_to(child).outbox.count == 0
    assert [child.next()[1] for _ in range(1000)] == [(number,) for number in range(1000)]


def test_a_flush_ends_at_its_deadline_and_with_nothing_to_write(pair, places):
    top, child = pair
    drain.flush(places("alone").node, Deadline(0.0))
    link = top.link_to(child)
    jam(top, link)
    top.send_child("child", "x", 1)
    drain.flush(top.node, Deadline(0.0))
    assert link.outbox.events == 1
    free(top, link)
    assert child.next()[:2] == ("x", (1,))


def test_what_has_no_connection_is_not_waited_for(places):
    top = places("top")
    link = top.make_child("child")
    top.send_child("child", "x")
    drain.flush(top.node, Deadline(None))
    assert link.outbox.events == 1


# Notices


def test_listeners_of_what_was_noticed_have_run_and_may_have_sent(pair):
    top, child = pair
    top.on("offline", lambda message, pid: top.send_child("child", "x", pid))
    top.node.events.notify(lambda: top.node.events.deliver("offline", ("1",)))
    drain.run_notices(top.node, Deadline(CEILING))
    assert top.node.outgoing.sent > 0
    assert child.next()[:2] == ("x", ("1",))


@pytest.mark.parametrize("step", [drain.run_notices, drain.end_notices])
def test_a_listener_that_does_not_return_is_not_waited_for_beyond_the_deadline(places, step, caplog):
    top = places("top")
    gate = Gate(top)
    step(top.node, Deadline(0.0))
    gate.go.set()
    assert (step is drain.end_notices) is ("has no time to tell all" in caplog.text)


def test_without_a_notices_thread_there_is_nothing_to_run_or_end(places):
    top = places("top")
    notices, top.node.notices = top.node.notices, None
    drain.run_notices(top.node, Deadline(None))
    drain.end_notices(top.node, Deadline(None))
    top.node.notices = notices


def test_the_notices_thread_ends_after_all_that_was_noticed(places):
    top, told = places("top"), []
    for number in range(3):
        top.node.events.notify(lambda number=number: told.append(number))
    drain.end_notices(top.node, Deadline(CEILING))
    assert told == [0, 1, 2]
    assert not top.node.notices._thread.is_alive()


# Goodbye


def test_after_goodbye_nothing_comes_in_and_each_neighbour_has_read_all_and_closed_its_end(pair):
    top, child = pair
    for number in range(100):
        top.send_child("child", "x", number)
    drain.flush(top.node, Deadline(CEILING))
    stops(top)
    drain.say_goodbye(top.node, Deadline(CEILING))
    assert (top.node.state.state, top.node.stage) == (State.ENDING, Stage.CLOSED)
    assert child.next_closed() == ("top", None)
    assert child.heard.qsize() == 100
    assert top.next_closed() == ("child", None)
    assert top.links[0].ended
    assert top.links[0].join(Deadline(CEILING))


def test_a_neighbour_that_closes_nothing_is_left_at_the_deadline(places, raw):
    top = places("top")
    one = raw(top)
    stops(top)
    drain.say_goodbye(top.node, Deadline(0.0))
    assert one.link.ended
    assert one.socket.recv(1) == b""
    assert one.link.join(Deadline(CEILING))


# The end


def test_what_no_peer_took_is_counted_and_the_counters_stay(places):
    top = places("top")
    link = top.make_child("child")
    for number in range(3):
        top.send_child("child", "x", number)
    with top.node.lock:
        link.outbox.put_interest("y", True)  # of the library, and so not counted
        link.end()
    drain.join(top.node, Deadline(CEILING))
    assert shown(top.node.past)["dropped"] == {"closed": 3}
    assert (top.node.router.neighbours, link.outbox.count) == ({}, 0)


def test_links_that_were_retired_are_joined_and_not_counted_again(places):
    top = places("top")
    link = top.make_child("child")
    link.sent = 5
    with top.node.lock:
        top.node.router.remove_child(link)
        top.node.presence.retire(link)
    drain.join(top.node, Deadline(CEILING))
    assert not link.is_alive()
    assert (top.node.retired, shown(top.node.past)["sent"]) == ([], 5)


@pytest.mark.parametrize("step", [drain.end, drain.join])
def test_a_link_whose_listener_does_not_return_is_left_at_the_deadline(pair, step, caplog):
    top, child = pair
    begun, go = threading.Event(), threading.Event()

    def listener(message):
        begun.set()
        assert go.wait(CEILING)

    top.on("go", listener)
    child.send_to(["top"], "go")
    assert begun.wait(CEILING)
    link = top.links[0]
    with top.node.lock:
        link.end()
    step(top.node, Deadline(0.0))
    assert top.node.router.neighbours == {}
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    go.set()
    (text,) = warned
    assert text.startswith("! the threads of <Link to child ended")
    assert text.endswith("do not end: a listener keeps it")


def test_after_a_fault_all_links_end_without_a_word_also_those_that_were_retired(pair, places):
    top, child = pair
    retired = top.make_child("gone")
    with top.node.lock:
        top.node.router.remove_child(retired)
        top.node.retired.append(retired)
    drain.end(top.node, Deadline(CEILING))
    assert not retired.is_alive()
    assert not top.links[0].is_alive()
    assert (top.node.retired, top.node.router.neighbours) == ([], {})
    assert child.next_closed() == ("top", None)
