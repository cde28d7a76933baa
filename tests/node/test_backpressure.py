"""The flow rules at a full outbox, and the limits of size."""

from __future__ import annotations

import os
import queue
import signal
import threading

import pytest
from balance import imbalances
from places import CEILING, FULL, expect_old, free, in_thread, join, settle, stall, watch_waits

from ipevents._core import outbox
from ipevents._core.books import shown
from ipevents._core.messages import (
    BROADCAST,
    PARENT,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._core.outbox import STALLED_SECONDS, Patience
from ipevents._core.state import Stage
from ipevents._exceptions import Closed, MessageTooLarge, OutboxFull, SlowPeer, Undeliverable, UnknownProcess
from ipevents._node import backpressure
from ipevents._node.snapshot import snapshot
from ipevents._payload.forms import size_of
from ipevents._platform.clock import monotonic
from ipevents._platform.threads import library_threads, start_thread

# Full outboxes. They are full at a few records; a jammed link takes nothing, as if its peer read nothing.


def test_rule_1_an_addressed_send_waits_and_is_woken_by_room(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x", 1)
    assert waiting.wait(CEILING)
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))


def test_rule_1_an_addressed_send_waits_also_for_a_peer_that_takes_nothing(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    stall(parent, link)
    result = in_thread(parent.send_to, ["first"], "x", 1)
    assert waiting.wait(CEILING)
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))
    assert link.dropped == {}


def test_rule_1_a_stop_ends_the_wait(pair, monkeypatch):
    parent, _, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    sent = parent.node.outgoing.sent
    with parent.node.lock:
        parent.node.stage = Stage.STOPPING
        link.wake_waiters()
    assert isinstance(result(), Closed)
    assert parent.node.outgoing.sent == sent


def test_rule_1_the_end_of_the_link_ends_the_wait_and_is_decided_again(pair, monkeypatch):
    parent, first, _, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    first.links[0].disconnect()
    assert isinstance(result(), UnknownProcess)
    assert link.dropped == {"link-cut": FULL}


def test_rule_1_no_lock_is_held_while_waiting(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send_child, "first", "x")
    assert waiting.wait(CEILING)
    parent.listen("y")
    second.send(TO_PARENTS, "y", 1)
    assert parent.next()[:2] == ("y", (1,))
    parent.send_child("second", "x", 2)
    assert second.next()[:2] == ("x", (2,))
    free(parent, link)
    assert result() is None
    expect_old(first)


@pytest.mark.parametrize("how", ["emit", "link"])
def test_rule_2_a_listener_is_refused_and_nothing_is_sent(pair, how):
    parent, first, second, link = pair
    raised = queue.Queue()

    def listener(message):
        for call in (
            lambda: parent.send_child("first", "x"),
            lambda: parent.send_to(["first"], "x"),
            lambda: parent.send(TO_CHILDS, "x"),
            lambda: parent.send(BROADCAST, "x"),
        ):
            try:
                call()
                raised.put(None)
            except BaseException as exc:
                raised.put(exc)

    parent.on("go", listener)
    sent = parent.node.outgoing.sent
    if how == "emit":
        parent.node.events.emit("go", (), {})
    else:
        second.send(TO_PARENTS, "go")
    assert [type(raised.get(timeout=CEILING)) for _ in range(4)] == [OutboxFull] * 4
    assert parent.node.outgoing.sent == sent
    assert len(link.outbox) == FULL
    free(parent, link)
    expect_old(first)
    settle(parent, second)
    assert second.heard.empty(), "the one who had room got nothing either"


def test_rule_2_code_in_a_library_thread_never_waits_either(pair):
    parent, _, _, _ = pair
    raised = queue.Queue()

    def run():
        for call in (lambda: parent.send_child("first", "x"), lambda: parent.send(TO_CHILDS, "x")):
            try:
                call()
            except OutboxFull as exc:
                raised.put(exc)

    start_thread("test", run).join(CEILING)
    assert raised.qsize() == 2


def test_rule_3_a_fanout_waits_while_the_peer_makes_progress(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    assert second.next()[:2] == ("x", (1,)), "who has room does not wait for the other one"
    free(parent, link)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))
    assert link.dropped == {}


def test_rule_3_a_fanout_drops_for_a_peer_that_took_nothing_and_says_so_once(pair, monkeypatch):
    parent, first, second, link = pair
    parent.hear_errors()
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    stall(parent, link)
    assert result() is None
    error = parent.next_error()
    assert isinstance(error, SlowPeer)
    assert "first" in str(error)
    for number in range(2, 5):
        parent.send(BROADCAST, "x", number)
    assert [second.next()[1] for _ in range(4)] == [(1,), (2,), (3,), (4,)]
    assert link.dropped == {"slow-peer": 4}
    free(parent, link)
    expect_old(first)
    settle(parent, first)
    assert parent.errors.empty()
    parent.send(BROADCAST, "x", 5)
    assert first.next()[:2] == ("x", (5,)), "half empty: it gets events again"


def test_rule_3_a_fanout_skips_a_link_that_goes_while_it_waits(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    result = in_thread(parent.send, BROADCAST, "x", 1)
    assert waiting.wait(CEILING)
    first.links[0].disconnect()
    assert result() is None
    assert second.next()[:2] == ("x", (1,))
    assert link.dropped == {"link-cut": FULL + 1}


def test_rule_3_a_reader_that_forwards_waits_while_listeners_run_elsewhere(pair, monkeypatch):
    parent, first, second, link = pair
    parent.listen("y")
    waiting = watch_waits(monkeypatch, link)
    second.send(TO_SIBLINGS, "x", 1)
    assert waiting.wait(CEILING)
    assert not parent.node.dispatcher.floor.owner, "the reader has left the dispatcher"
    parent.node.events.emit("y", (2,), {})
    assert parent.next()[:2] == ("y", (2,))
    free(parent, link)
    expect_old(first)
    assert first.next() == ("x", (1,), ("second", "parent", "first"))


def test_rule_3_a_reader_that_forwards_drops_for_a_peer_that_took_nothing(pair):
    parent, first, second, link = pair
    parent.hear_errors()
    stall(parent, link)
    for number in range(3):
        second.send(TO_SIBLINGS, "x", number)
    assert isinstance(parent.next_error(), SlowPeer)
    settle(parent, second)
    assert link.dropped == {"slow-peer": 3}
    free(parent, link)
    expect_old(first)


def test_rule_3_the_origin_of_an_addressed_message_is_told(pair):
    parent, first, second, link = pair
    second.hear_errors()
    stall(parent, link)
    second.send_to(["first", "parent"], "x")
    error = second.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at) == ("x", "parent")
    free(parent, link)
    expect_old(first)


def test_rule_4_a_forwarder_never_waits_for_the_link_that_it_reads_from(pair, monkeypatch):
    parent, first, _, link = pair
    first.hear_errors()
    parent.listen("y")
    monkeypatch.setattr(outbox, "OUTBOX_RECORDS", 1000)
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", link.outbox.size + 1000)
    first.send_to(["first", "parent"], "x", b"x" * 2000)  # by way of the parent to itself
    first.send(TO_PARENTS, "y", 1)
    assert parent.next()[:2] == ("y", (1,)), "the reader did not wait"
    assert link.dropped == {"full": 1}
    free(parent, link)
    error = first.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at, error.target) == ("x", "parent", "first")
    expect_old(first)


def test_a_full_outbox_still_takes_control_records(pair):
    parent, first, _, link = pair
    with parent.node.lock:
        link.tell((PARENT, "parent"))
        link.outbox.put_interest("z", True)
    assert len(link.outbox) == FULL + 2
    with parent.node.lock:
        link.outbox.take()
        link.outbox.clear()


# Sizes


def test_what_is_too_large_is_refused_at_the_call_and_changes_nothing(places):
    top, client = places("top"), places("client")
    join(top, client, limit=2000)
    client.listen("x")
    settle(top, client)
    sent = top.node.outgoing.sent
    for call in (
        lambda: top.send(BROADCAST, "x", b"x" * 3000),
        lambda: top.send_child("client", "x", b"x" * 3000),
        lambda: top.send_to(["client"], "x", bytes(100_000)),
    ):
        with pytest.raises(MessageTooLarge, match="2000"):
            call()
    assert top.node.outgoing.sent == sent
    top.send(BROADCAST, "x", b"x" * 1500)
    assert client.next()[:2] == ("x", (b"x" * 1500,))


# Signal handlers


def test_a_signal_handler_may_send_while_this_thread_waits_for_room(pair, monkeypatch):
    parent, first, second, link = pair
    waiting = watch_waits(monkeypatch, link)
    before = signal.signal(signal.SIGUSR1, lambda *_: parent.send_child("second", "x", 2))

    def interrupt():
        assert waiting.wait(CEILING)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert second.next()[:2] == ("x", (2,))
        free(parent, link)

    result = in_thread(interrupt)
    try:
        parent.send_child("first", "x", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result() is None
    expect_old(first)
    assert first.next()[:2] == ("x", (1,))


def test_the_looks_of_a_wait_are_of_the_design():
    assert backpressure.LOOK_SECONDS == 1.0


# The rules one by one, at a link that nobody writes


@pytest.fixture
def narrow(places, small):
    """A place with a child whose outbox is full, and with another one that has room."""
    place = places("me")
    place.full, place.free = place.make_child("full"), place.make_child("free")
    for number in range(FULL):
        place.send_child("full", "old", number)
    with place.node.lock:
        place.full.progress = monotonic()  # it has just taken something
    return place


def wait_for_room(place, link, patience, count=1):
    with place.node.lock:
        return backpressure.wait_for_room(place.node, link, 10, count, patience, "x")


@pytest.mark.parametrize("patience", Patience)
def test_where_there_is_room_nobody_waits(narrow, patience):
    assert wait_for_room(narrow, narrow.free, patience)
    assert narrow.free.dropped == {}


def test_code_in_a_listener_is_refused_with_what_waits_and_what_to_do(narrow):
    text = "event 'x' was not sent: 5 records wait for full, and a listener never waits; send less at once"
    with pytest.raises(OutboxFull, match=text):
        wait_for_room(narrow, narrow.full, Patience.LISTENER)
    assert narrow.full.dropped == {}


def test_a_reader_drops_at_the_link_that_it_reads_from_without_an_episode(narrow):
    narrow.hear_errors()
    assert not wait_for_room(narrow, narrow.full, Patience.BACK, 2)
    assert narrow.full.dropped == {"full": 2}
    assert not narrow.full.outbox.dropping
    assert narrow.errors.empty()


def test_an_addressed_send_looks_again_after_each_wait(narrow, monkeypatch):
    waits = []
    monkeypatch.setattr(narrow.full, "wait_room", waits.append)
    assert not wait_for_room(narrow, narrow.full, Patience.APPLICATION)
    assert waits == [backpressure.LOOK_SECONDS]


def test_a_fanout_waits_as_long_as_the_peer_makes_progress_and_no_longer(narrow, monkeypatch):
    narrow.hear_errors()
    waits = []

    def wait_room(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            narrow.full.progress = monotonic() - STALLED_SECONDS

    monkeypatch.setattr(narrow.full, "wait_room", wait_room)
    assert not wait_for_room(narrow, narrow.full, Patience.FANOUT, 2)
    assert len(waits) == 3
    assert narrow.full.dropped == {"slow-peer": 2}
    error = narrow.next_error()
    assert isinstance(error, SlowPeer)
    assert str(error).startswith("full has taken nothing for 1 s while 5 records wait for it; events to it")
    assert not wait_for_room(narrow, narrow.full, Patience.FANOUT)
    assert (len(waits), narrow.full.dropped) == (3, {"slow-peer": 3})
    assert narrow.errors.empty()


def test_the_error_about_a_slow_child_has_its_handle(narrow):
    got = queue.Queue()
    narrow.on("error", lambda message, exc: got.put(message.child))
    narrow.full.child = handle = object()
    narrow.full.progress = monotonic() - STALLED_SECONDS
    assert not wait_for_room(narrow, narrow.full, Patience.FANOUT)
    assert got.get(timeout=CEILING) is handle


@pytest.mark.parametrize("what", ["stop", "end"])
def test_a_fanouts_wait_ends_with_the_stop_and_with_the_link(narrow, monkeypatch, what):
    def wait_room(seconds):
        if what == "stop":
            narrow.node.stage = Stage.CLOSED
        else:
            narrow.node.router.remove_child(narrow.full)

    monkeypatch.setattr(narrow.full, "wait_room", wait_room)
    if what == "stop":
        with pytest.raises(Closed):
            wait_for_room(narrow, narrow.full, Patience.FANOUT)
        assert narrow.full.dropped == {}
    else:
        assert not wait_for_room(narrow, narrow.full, Patience.FANOUT, 2)
        assert narrow.full.dropped == {"link-cut": 2}


def test_a_reader_that_forwards_waits_unless_it_would_wait_for_itself(narrow, monkeypatch):
    patience = []
    monkeypatch.setattr(backpressure, "wait_for_room", lambda *args: patience.append(args[4]))
    backpressure.wait_to_forward(narrow.node, narrow.free, narrow.full, 1, 1)
    backpressure.wait_to_forward(narrow.node, narrow.full, narrow.full, 1, 1)
    assert patience == [Patience.FANOUT, Patience.BACK]


# Sizes, as the link says


@pytest.fixture
def link(places):
    link = places("me").make_child("child")
    link.limit, link.is_limited = 1000, True
    return link


def test_a_message_as_large_as_the_limit_is_taken(link):
    backpressure.check_size(link, "x", (), 1000)
    with pytest.raises(MessageTooLarge, match=r"event 'x' has 1001 bytes, child takes at most 1000 \(socket"):
        backpressure.check_size(link, "x", (), 1001)


def test_between_relatives_only_what_has_to_fit_in_a_frame_is_limited(link):
    large = [b"meta", [bytes(2000)]]
    with pytest.raises(MessageTooLarge):
        backpressure.check_size(link, "x", large, 2000)
    link.is_limited = False
    backpressure.check_size(link, "x", large, 2000)
    with pytest.raises(MessageTooLarge):
        backpressure.check_size(link, "x", (bytes(2000),), 2000)


def test_the_largest_of_several_messages_counts(link):
    most = size_of((b"x" * 900,))
    link.limit = most
    assert backpressure.too_large(link, [(b"x",), (b"x" * 900,), (b"x" * 900,)]) == 0
    assert backpressure.too_large(link, [(b"x",), (b"x" * 901,), (b"x" * 900,)]) == most + 1


def test_a_fanout_that_is_too_large_for_one_link_goes_over_none(places):
    place = places("me")
    first, second = place.make_child("first"), place.make_child("second")
    second.limit, second.is_limited = 2000, True
    with pytest.raises(MessageTooLarge):
        place.send(TO_CHILDS, "x", b"x" * 3000)
    assert (len(first.outbox), len(second.outbox), place.node.outgoing.sent) == (0, 0, 0)


# Before large buffers are copied


@pytest.fixture
def heavy(places, monkeypatch):
    """A place with a link whose outbox has as many bytes as it may have."""
    monkeypatch.setattr(outbox, "OUTBOX_BYTES", 1000)
    place = places("me")
    place.link = place.make_child("child")
    place.send_child("child", "x", b"x" * 990)
    with place.node.lock:
        place.link.progress = monotonic()
    return place


def wait_to_copy(place, size=100):
    backpressure.wait_to_copy(place.node, lambda: (place.link,), size)


def test_a_copy_waits_for_room_in_the_link_that_it_is_for(heavy, monkeypatch):
    waiting = watch_waits(monkeypatch, heavy.link)
    result = in_thread(wait_to_copy, heavy)
    assert waiting.wait(CEILING)
    with heavy.node.lock:
        heavy.link.outbox.clear()
        heavy.link.wake_waiters()
    assert result() is None


@pytest.mark.parametrize("where", ["listener", "library"])
def test_who_never_waits_copies_at_once(heavy, monkeypatch, where):
    waiting = watch_waits(monkeypatch, heavy.link)
    if where == "listener":
        heavy.on("go", lambda message: wait_to_copy(heavy))
        heavy.node.events.emit("go", (), {})
    else:
        start_thread("test", lambda: wait_to_copy(heavy)).join(CEILING)
    assert not waiting.is_set()


@pytest.mark.parametrize("why", ["room", "stalled", "stopping"])
def test_a_copy_does_not_wait_where_a_wait_is_of_no_use(heavy, monkeypatch, why):
    waiting = watch_waits(monkeypatch, heavy.link)
    with heavy.node.lock:
        if why == "room":
            heavy.link.outbox.clear()
        elif why == "stalled":
            heavy.link.progress = monotonic() - backpressure.LOOK_SECONDS
        else:
            heavy.node.stage = Stage.STOPPING
    wait_to_copy(heavy)
    assert not waiting.is_set()


def test_a_copy_that_waits_finds_out_that_its_link_is_gone(heavy, monkeypatch):
    links = [(heavy.link,), ()]
    monkeypatch.setattr(heavy.link, "wait_room", lambda seconds: None)
    backpressure.wait_to_copy(heavy.node, lambda: links.pop(0), 100)
    assert links == []


# What is counted where there is no room


def counted(place):
    """Events sent, and their copies beyond one for each; and all has to be in the books."""
    with place.node.lock:
        outgoing = place.node.outgoing
        found = (outgoing.sent - place.before[0], outgoing.more - place.before[1])
    assert imbalances(snapshot(place.node, 0, int)) == []
    assert place.node.outgoing.filtered == 0
    return found


def measured(place):
    """From now on only what comes is counted."""
    place.before = (place.node.outgoing.sent, place.node.outgoing.more)
    return place


@pytest.fixture
def jammed(narrow):
    """A place with two children whose outboxes are full, and one that has room."""
    narrow.second = narrow.make_child("second")
    for number in range(FULL):
        narrow.send_child("second", "old", number)
    return measured(narrow)


def take_one(link):
    """As if it had been written, handled, and then forgotten."""
    link.outbox.take()
    link.outbox.taken = []
    link.sent += 1
    link.acknowledged += 1


def test_a_fanout_that_waits_for_some_links_is_sent_once_with_a_copy_for_each(jammed, monkeypatch):
    for link in (jammed.full, jammed.second):
        monkeypatch.setattr(link, "wait_room", lambda seconds, link=link: take_one(link))
        link.progress = monotonic()
    jammed.send(TO_CHILDS, "x", 1)
    assert counted(jammed) == (1, 2)
    assert [link.outbox.events for link in (jammed.full, jammed.second, jammed.free)] == [FULL, FULL, 1]


def test_a_fanout_for_which_no_link_has_room_at_once_is_sent_once_as_well(jammed, monkeypatch):
    with jammed.node.lock:
        jammed.node.router.remove_child(jammed.free)
    for link in (jammed.full, jammed.second):
        monkeypatch.setattr(link, "wait_room", lambda seconds, link=link: take_one(link))
        link.progress = monotonic()
    jammed.send(TO_CHILDS, "x", 1)
    assert counted(jammed) == (1, 1)


def test_a_copy_that_is_dropped_for_a_slow_peer_counts_as_a_copy(jammed):
    for link in (jammed.full, jammed.second):
        link.progress = -1000.0
    for number in range(1, 4):
        jammed.send(TO_CHILDS, "x", number)
        assert counted(jammed) == (number, 2 * number)
    assert jammed.full.dropped == jammed.second.dropped == {"slow-peer": 3}
    assert jammed.free.outbox.events == 3


@pytest.mark.parametrize("gone", ["full", "second"])
def test_a_copy_for_a_link_that_goes_in_a_wait_counts_as_a_copy(jammed, monkeypatch, gone):
    """The first goes while its own room is waited for, the second while that of the first is."""

    def wait_room(seconds):
        jammed.node.presence.child_gone(getattr(jammed, gone), None)
        if gone == "second":
            take_one(jammed.full)

    monkeypatch.setattr(jammed.full, "wait_room", wait_room)
    monkeypatch.setattr(jammed.second, "wait_room", lambda seconds: take_one(jammed.second))
    jammed.full.progress = jammed.second.progress = monotonic()
    jammed.send(TO_CHILDS, "x", 1)
    assert counted(jammed) == (1, 2)
    assert shown(jammed.node.past)["dropped"] == {"link-cut": FULL + 1}


def test_an_addressed_event_that_waits_is_sent_once(jammed, monkeypatch):
    waits = []

    def wait_room(seconds):
        waits.append(counted(jammed))
        if len(waits) == 2:
            take_one(jammed.full)

    monkeypatch.setattr(jammed.full, "wait_room", wait_room)
    jammed.send_child("full", "x", 1)
    assert waits == [(0, 0), (0, 0)], "nothing is counted before it is put"
    assert counted(jammed) == (1, 0)


def test_a_wait_that_ends_with_the_stop_leaves_only_what_was_put(jammed, monkeypatch):
    def wait_room(seconds):
        jammed.node.stage = Stage.CLOSED

    jammed.full.progress = monotonic()
    monkeypatch.setattr(jammed.full, "wait_room", wait_room)
    with pytest.raises(Closed):
        jammed.send(TO_CHILDS, "x", 1)
    assert counted(jammed) == (1, 0)
    assert [link.dropped for link in (jammed.full, jammed.second, jammed.free)] == [{}, {}, {}]


# What is counted of what listeners send


def in_listener(place, call):
    """Run a call as a listener does; returns what it raised, or None."""
    raised = []

    def listener(message):
        try:
            call()
        except BaseException as exc:
            raised.append(exc)

    place.on("go", listener)
    place.node.events.emit("go", (), {})
    place.node.dispatcher.remove("go", listener)
    return raised[0] if raised else None


@pytest.mark.parametrize("links", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2 * backpressure.ANY_LIMIT])
def test_a_fanout_of_a_listener_is_one_event_sent_and_a_copy_for_each_link(places, links, size):
    place = measured(places("me"))
    place.node.announced = True
    made = [place.make_child(str(number)) for number in range(links)]
    assert in_listener(place, lambda: place.send(TO_CHILDS, "x", b"x" * size)) is None
    outgoing = place.node.outgoing
    assert (outgoing.sent, outgoing.more, outgoing.filtered) == (1, links - 1, not links)
    assert imbalances(snapshot(place.node, 0, int)) == []
    assert [link.outbox.events for link in made] == [1] * links


def test_what_a_listener_is_refused_is_not_counted(jammed):
    for call in (lambda: jammed.send(TO_CHILDS, "x"), lambda: jammed.send_child("full", "x")):
        assert type(in_listener(jammed, call)) is OutboxFull
    assert counted(jammed) == (0, 0)
    assert jammed.free.outbox.events == 0


def test_what_a_thread_of_the_library_is_refused_goes_nowhere_and_is_not_counted(jammed):
    library_threads.add(threading.get_ident())  # in no listener: a deferred send, say
    try:
        for call in (lambda: jammed.send(TO_CHILDS, "x"), lambda: jammed.send_child("full", "x")):
            with pytest.raises(OutboxFull):
                call()
    finally:
        library_threads.discard(threading.get_ident())
    assert counted(jammed) == (0, 0)
    assert jammed.free.outbox.events == 0


def test_a_listener_that_sends_to_a_slow_peer_which_has_room_again_is_counted_as_ever(jammed):
    with jammed.node.lock:
        jammed.full.outbox.begin_dropping()
        take_one(jammed.full)
        take_one(jammed.second)
    assert in_listener(jammed, lambda: jammed.send(TO_CHILDS, "x")) is None
    assert counted(jammed) == (1, 2)
    assert [link.outbox.events for link in (jammed.full, jammed.second, jammed.free)] == [FULL, FULL, 1]


def test_a_listener_at_the_top_sends_to_itself_without_a_copy(places):
    place = measured(places("me")).listen("x")
    place.node.announced = True
    assert in_listener(place, lambda: place.send(TO_GRAND_MASTER, "x")) is None
    assert in_listener(place, lambda: place.send_to(["me"], "x")) is None
    assert counted(place) == (2, -2)
    assert place.node.outgoing.delivered == 2


def test_what_is_too_large_for_one_link_is_not_counted_for_any(places):
    place = measured(places("me"))
    place.node.announced = True
    place.make_child("first")
    second = place.make_child("second")
    second.limit, second.is_limited = 2000, True

    def send():
        place.send(TO_CHILDS, "x", b"x" * 3000)

    with pytest.raises(MessageTooLarge):
        send()
    assert type(in_listener(place, send)) is MessageTooLarge
    assert counted(place) == (0, 0)
