"""What ``Emitter.stats`` returns of a node."""

from __future__ import annotations

import json

from places import settle

from ipevents._core.messages import PARENT, TO_CHILDS
from ipevents._node.snapshot import of_link, snapshot


def test_the_counters_of_one_moment_are_plain_values(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    top.send(TO_CHILDS, "x")
    middle.next()
    top.node.incoming.count("undeliverable", 2)
    top.node.incoming.count_refused("wrong-key")
    link = top.link_to(middle)
    with top.node.lock:
        link.drop("full", 3)
    stats = snapshot(top.node, 7)
    assert json.loads(json.dumps(stats)) == stats
    assert (stats["pid"], stats["restarts"], stats["undeliverable"]) == ("top", 7, 2)
    assert (stats["sent"], stats["delivered"]) == (top.node.outgoing.sent, top.node.incoming.delivered)
    assert stats["refused"] == {"wrong-key": 1}
    assert list(stats["links"]) == ["middle"]
    assert stats["links"]["middle"]["dropped"] == {"full": 3}
    assert stats["links"]["middle"]["sent"] == link.sent > 0
    assert stats["past"] == {
        "sent": 0,
        "acknowledged": 0,
        "received": 0,
        "forwarded": 0,
        "delivered": 0,
        "dropped": {},
    }


def test_the_caller_may_change_what_it_got(places):
    top = places("top")
    link = top.make_child("child")
    with top.node.lock:
        link.drop("full")
        top.node.presence.remember(link)
    stats = snapshot(top.node, 0)
    for part in (
        stats["refused"],
        stats["past"],
        stats["past"]["dropped"],
        stats["links"]["child"]["dropped"],
    ):
        part.clear()
    again = snapshot(top.node, 0)
    assert again["past"]["dropped"] == again["links"]["child"]["dropped"] == {"full": 1}


def test_the_way_to_a_server_that_is_not_connected_yet_is_among_the_links_by_its_name(places):
    client = places("client")
    link = client.make_parent("server")
    client.send(TO_CHILDS, "x")
    with client.node.lock:
        link.tell((PARENT, "client"))
    assert snapshot(client.node, 0)["links"]["server"]["queued"] == 1


def test_a_neighbour_that_is_no_link_is_left_out(places):
    top = places("top")
    with top.node.lock:
        top.node.router.add_child("no link", "child")
    assert snapshot(top.node, 0)["links"] == {}


def test_what_waits_now_counts_for_the_peak_although_nothing_was_taken_yet(places):
    top = places("top")
    link = top.make_child("child")
    for number in range(3):
        top.send_child("child", "x", number)
    with top.node.lock:
        assert link.outbox.peak == 0
        found = of_link(link)
        assert (found["queued"], found["peak"], found["queuedBytes"]) == (3, 3, link.outbox.size)
        link.outbox.take()
        found = of_link(link)
        assert (found["queued"], found["peak"], found["queuedBytes"]) == (0, 3, 0)
