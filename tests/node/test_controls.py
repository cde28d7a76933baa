"""Control records: what a node does with them, and what it delivers and passes on."""

from __future__ import annotations

from places import join

from ipevents._core.messages import TO_PARENTS


def test_online_is_told_to_all_above_and_parent_to_the_child(places):
    top, middle, leaf = places("top").listen("online"), places("middle").listen("online"), places("leaf")
    leaf.listen("parent")
    join(top, middle)
    assert top.next() == ("online", (), ("middle", "top"))
    join(middle, leaf)
    assert middle.next() == ("online", (), ("leaf", "middle"))
    assert top.next() == ("online", (), ("leaf", "middle", "top"))
    assert leaf.next() == ("parent", ("middle",), ("middle", "leaf"))
    assert top.node.router.netmap.as_dict() == {"middle": {"leaf": {}}}


def test_who_goes_further_down_is_told_by_who_noticed(line):
    top, _, leaf = line
    top.listen("offline")
    leaf.links[0].close_session()
    assert top.next() == ("offline", ("leaf",), ("middle", "top"))


def test_an_unknown_control_record_goes_to_who_knows_processes(places, raw):
    top = places("top").listen("x")
    raw(top).send((99, "news"), (TO_PARENTS, ("raw",), "x", None, [()]))
    top.next()
    assert top.controls == [(99, "news")]
