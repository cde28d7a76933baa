"""The flow rules at a full outbox, and the limits of size."""

from __future__ import annotations

import os
import queue
import signal

import pytest
from places import CEILING, FULL, expect_old, free, in_thread, join, settle, stall, watch_waits

from ipevents._core import outbox
from ipevents._core.messages import BROADCAST, PARENT, TO_CHILDS, TO_PARENTS, TO_SIBLINGS
from ipevents._core.state import Stage
from ipevents._exceptions import Closed, MessageTooLarge, OutboxFull, SlowPeer, Undeliverable, UnknownProcess
from ipevents._node import backpressure
from ipevents._platform.threads import start_thread

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
    first.links[0].close_session()
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
    first.links[0].close_session()
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
