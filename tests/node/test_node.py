"""A small tree of whole nodes: who hears what."""

from __future__ import annotations

import pytest
from places import settle

from ipevents._core.messages import BROADCAST, TO_CHILDS, TO_GRAND_MASTER, TO_PARENTS, TO_SIBLINGS

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


def test_what_nobody_wants_is_not_put_on_the_wire(line):
    top, middle, _ = line
    sent = top.link_to(middle).sent
    top.send(TO_CHILDS, "nobody listens")
    settle(*line)
    assert top.link_to(middle).sent == sent + 2, "the two marks"
