"""What passes through a node, and what its origin gets where it cannot."""

from __future__ import annotations

import queue

from places import CEILING, join, settle

from ipevents._core.messages import SEND_TO, TO_CHILD, TO_PARENTS
from ipevents._exceptions import Undeliverable


def test_a_route_that_breaks_further_on_is_told_to_its_origin(line):
    top, _, leaf = line
    top.hear_errors()
    leaf.hear_errors()
    top.send_to(["nobody", "leaf", "middle"], "x")
    error = top.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at, error.target) == ("x", "leaf", "nobody")
    leaf.send_to(["nobody", "middle"], "x")
    error = leaf.next_error()
    assert (error.event, error.at, error.target) == ("x", "middle", "nobody")


def test_such_notices_come_at_most_once_a_second_for_one_cause(line):
    top, _, _ = line
    top.hear_errors()
    for _ in range(50):
        top.send_to(["nobody", "middle"], "x")
    assert isinstance(top.next_error(), Undeliverable)
    settle(*line)
    assert top.errors.empty()
    assert line[1].links[0].dropped == {"undeliverable": 50}


def test_what_a_forwarder_cannot_pass_on_is_told_to_its_origin(places):
    top, client, worker = places("top"), places("client"), places("worker").hear_errors()
    top.listen("x")
    join(top, client, limit=2000)
    join(client, worker)
    settle(top, client, worker)
    worker.send(TO_PARENTS, "x", b"x" * 3000)
    error = worker.next_error()
    assert isinstance(error, Undeliverable)
    assert (error.event, error.at) == ("x", "client")
    worker.send(TO_PARENTS, "x", 1)
    assert top.next()[:2] == ("x", (1,))
    assert client.link_to(top).dropped == {"too-large": 1}


def test_many_different_events_pass_a_relay_without_filling_it(line):
    top, middle, leaf = line
    top.listen("a", "b")
    with leaf.node.lock:
        plans = [leaf.node.router.plan_here(TO_PARENTS, event) for event in "ab"]
        for number in range(5000):
            assert leaf.links[0].outbox.offer(plans[number % 2], (number,), 10)
        leaf.links[0].prompt()
    assert [top.next()[1] for _ in range(5000)] == [(number,) for number in range(5000)]
    assert middle.link_to(top).dropped == {}
    assert middle.link_to(top).outbox.peak <= 5000


def test_a_message_for_a_child_is_delivered_with_its_name(line):
    top, middle, _ = line
    got = queue.Queue()
    middle.on("x", lambda message: got.put((message.type, message.to, message.route)))
    top.send_child("middle", "x")
    top.send_to(["middle"], "x")
    assert got.get(timeout=CEILING) == ("toChild", "middle", None)
    assert got.get(timeout=CEILING) == ("sendTo", "middle", ())
    assert TO_CHILD != SEND_TO
