"""Which way an event goes, over real links."""

from __future__ import annotations

import pytest
from places import settle

from ipevents._core.messages import (
    BROADCAST,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
)
from ipevents._core.router import Up
from ipevents._exceptions import (
    NotConnected,
    Undeliverable,
)

KINDS = [
    # who sends, kind, who hears, with these pids
    ("leaf", TO_PARENTS, {"middle": "leaf middle", "top": "leaf middle top"}),
    ("leaf", TO_GRAND_MASTER, {"top": "leaf middle top"}),
    ("leaf", BROADCAST, {"middle": "leaf middle", "top": "leaf middle top"}),
    ("leaf", TO_SIBLINGS, {}),
    ("leaf", TO_CHILDS, {}),
    ("middle", TO_PARENTS, {"top": "middle top"}),
    ("middle", TO_CHILDS, {"leaf": "middle leaf"}),
    ("middle", BROADCAST, {"top": "middle top", "leaf": "middle leaf"}),
    ("top", TO_CHILDS, {"middle": "top middle", "leaf": "top middle leaf"}),
    ("top", BROADCAST, {"middle": "top middle", "leaf": "top middle leaf"}),
    ("top", TO_GRAND_MASTER, {"top": "top"}),
    ("top", TO_PARENTS, {}),
]


@pytest.mark.parametrize(("sender", "kind", "expected"), KINDS)
def test_each_kind_reaches_the_right_ones(line, sender, kind, expected):
    by_pid = {place.pid: place.listen("x") for place in line}
    settle(*line)
    by_pid[sender].send(kind, "x", 1)
    settle(*line)
    heard = {pid: list(place.heard.queue) for pid, place in by_pid.items() if place.heard.qsize()}
    assert heard == {pid: [("x", (1,), tuple(pids.split()))] for pid, pids in expected.items()}


def test_a_reply_comes_back_over_all_hops(line):
    top, _, leaf = line
    top.on("question", lambda message, value: message.reply("answer", value + 1))
    leaf.listen("answer")
    leaf.send(TO_GRAND_MASTER, "question", 1)
    assert leaf.next() == ("answer", (2,), ("top", "middle", "leaf"))


def test_in_an_outage_the_way_up_is_refused_or_lost_with_one_error(line):
    _, middle, leaf = line
    middle.hear_errors().listen("x")
    leaf.hear_errors()
    with middle.node.lock:
        middle.node.router.set_up(Up.AWAY)
    for _ in range(3):
        middle.send(TO_PARENTS, "x")
    error = middle.next_error()
    assert isinstance(error, NotConnected)
    here = middle.node.place()
    assert str(error) == f"the server top is away; what {here} sends upwards is lost until it is back"
    middle.send(TO_GRAND_MASTER, "x")
    assert isinstance(middle.next_error(), NotConnected)
    middle.send_to(["top"], "x")
    assert isinstance(middle.next_error(), NotConnected)
    leaf.send(BROADCAST, "x", 5)
    assert isinstance(leaf.next_error(), Undeliverable)
    assert middle.next()[1] == (5,), "here it is heard"
    assert middle.errors.empty()
    assert middle.link_to(line[0]).dropped == {"disconnected": 4}
