"""What ``Emitter.stats`` returns of a node."""

from __future__ import annotations

import json

from places import settle

from ipevents._core.messages import PARENT, TO_CHILDS, TO_PARENTS
from ipevents._exceptions import Forged, SilentPeer
from ipevents._node.snapshot import of_link, snapshot

NOTHING = {"unheard": 0, "unreadable": 0, "forwarded": 0, "dropped": 0}


def test_the_counters_of_one_moment_are_plain_values(line):
    top, middle, _ = line
    middle.listen("x")
    settle(*line)
    top.send(TO_CHILDS, "x")
    middle.next()
    top.node.incoming.controls.undeliverable = 2
    top.node.refusals.note_quietly("wrong-key", "refused")
    link = top.link_to(middle)
    with top.node.lock:
        link.drop("full", 3)
    for error in (Forged("one"), SilentPeer("another one"), Forged("a third")):
        top.node.errors.link_failed(error, "middle")
    stats = snapshot(top.node, 7, lambda: 5)
    assert json.loads(json.dumps(stats)) == stats
    assert (stats["pid"], stats["restarts"], stats["undeliverable"]) == ("top", 7, 2)
    assert (stats["sent"], stats["delivered"], stats["waiting"]) == (
        top.node.outgoing.sent,
        link.delivered,
        5,
    )
    assert (stats["unheard"], stats["unreadable"], stats["dropped"]) == (0, 0, {})
    assert stats["refused"] == {"wrong-key": 1}
    assert stats["faults"] == {"Forged": 2, "SilentPeer": 1}
    assert list(stats["links"]) == ["middle"]
    assert stats["links"]["middle"]["dropped"] == {"full": 3}
    assert stats["links"]["middle"]["sent"] == link.sent > 0
    assert stats["past"] == {
        "sent": 0,
        "acknowledged": 0,
        "acknowledgedAs": {"delivered": 0, **NOTHING},
        "lost": 0,
        "dropped": {},
        "received": 0,
        "receivedAs": {"delivered": 0, **NOTHING},
        "forwarded": 0,
    }


def test_the_caller_may_change_what_it_got(places):
    top = places("top")
    link = top.make_child("child")
    with top.node.lock:
        link.drop("full")
        link.end_here("malformed", 2)
        top.node.remember(link)
        link.drop("full")
    stats = snapshot(top.node, 0, int)
    for part in (
        stats["refused"],
        stats["dropped"],
        stats["past"]["dropped"],
        stats["past"]["receivedAs"],
        stats["past"]["acknowledgedAs"],
        stats["past"],
        stats["links"]["child"]["dropped"],
        stats["links"]["child"]["receivedAs"],
        stats["links"]["child"]["acknowledgedAs"],
    ):
        part.clear()
    again = snapshot(top.node, 0, int)
    assert again["past"]["dropped"] == again["links"]["child"]["dropped"] == {"full": 1}
    assert (again["dropped"], again["past"]["receivedAs"]["dropped"]) == ({"malformed": 2}, 2)


def test_the_way_to_a_server_that_is_not_connected_yet_is_among_the_links_by_its_name(places):
    client = places("client")
    link = client.make_parent("server")
    client.send(TO_PARENTS, "x")
    with client.node.lock:
        link.tell((PARENT, "client"))  # which is no event
        assert link.outbox.count == 2
    assert snapshot(client.node, 0, int)["links"]["server"]["queued"] == 1


def test_a_neighbour_that_is_no_link_is_left_out(places):
    top = places("top")
    with top.node.lock:
        top.node.router.add_child("no link", "child")
    assert snapshot(top.node, 0, int)["links"] == {}


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
        assert (found["queued"], found["peak"], found["queuedBytes"]) == (3, 3, 0), "it is not written yet"
        link.outbox.taken = []
        assert of_link(link)["queued"] == 0


def test_what_ended_here_is_counted_by_its_cause_over_all_links_and_what_nobody_wanted_of_what_was_sent(
    places,
):
    top = places("top")
    links = [top.make_child(pid) for pid in ("one", "two", "gone")]
    with top.node.lock:
        for number, link in enumerate(links, 1):
            link.received = 2 * number
            link.end_here("filtered", number)
            link.end_here(f"only {number}", number)
        top.node.router.remove_child(links[2])
        top.node.remember(links[2])
    top.send(TO_CHILDS, "x")
    with top.node.lock:
        top.node.outgoing.filtered = 10
    stats = snapshot(top.node, 0, int)
    assert stats["dropped"] == {"filtered": 16, "only 1": 1, "only 2": 2, "only 3": 3}
    ended = [stats["links"]["one"], stats["links"]["two"], stats["past"]]
    assert [part["receivedAs"]["dropped"] for part in ended] == [2, 4, 6]
    assert [part["dropped"] for part in ended] == [{}, {}, {}]


def test_what_was_for_the_process_itself_is_delivered_or_unheard_without_a_link(places):
    top = places("top").listen("x")
    top.node.announced = True
    for event in ("x", "x", "y"):
        top.send_to(["top"], event)
    stats = snapshot(top.node, 0, int)
    names = ("sent", "copies", "delivered", "unheard", "dropped", "links")
    assert [stats[name] for name in names] == [3, 0, 2, 1, {}, {}]


def test_a_link_that_is_remembered_begins_new_books_and_nothing_is_counted_twice(places):
    top = places("top")
    link = top.make_child("child")
    with top.node.lock:
        for number in range(1, 4):
            link.sent += number
            link.acknowledged += number
            link.acknowledged_as = (0, 0, link.acknowledged, 0)
            found = snapshot(top.node, 0, int)["links"]["child"]
            assert (found["sent"], found["acknowledgedAs"]["forwarded"]) == (number, number)
            top.node.remember(link)
            top.node.remember(link)
            stats = snapshot(top.node, 0, int)
            assert stats["links"]["child"]["sent"] == 0
            assert stats["past"]["sent"] == stats["past"]["acknowledgedAs"]["forwarded"] == link.sent
