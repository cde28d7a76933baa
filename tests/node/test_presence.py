"""What the neighbours of a node know of it."""

from __future__ import annotations

import gc
import threading

import pytest
from places import CEILING, Raw, free, inside, jam, join, queued, settle, watch_waits

from ipevents._core.books import FORWARDED, UNHEARD
from ipevents._core.interest import Change
from ipevents._core.messages import (
    ANSWERS,
    BROADCAST,
    EVERYTHING,
    INTEREST,
    INTERESTS,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    QUIET,
    RESERVED_EVENTS,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
)
from ipevents._core.state import Stage
from ipevents._core.topology import Up
from ipevents._exceptions import NotConnected, Undeliverable
from ipevents._node.presence import Presence
from ipevents._node.snapshot import snapshot
from ipevents._platform.threads import Deadline


def test_who_goes_is_told_deepest_first(line):
    top, middle, _ = line
    top.listen("offline")
    middle.link_to(top).disconnect()
    assert top.next() == ("offline", ("leaf",), ("top",))
    assert top.next() == ("offline", ("middle",), ("top",))
    assert top.node.router.netmap.as_dict() == {}


def test_interest_is_told_and_withdrawn_over_all_levels(line):
    top, middle, leaf = line
    listener = lambda message: None  # noqa: E731
    leaf.on("x", listener)
    settle(*line)
    assert top.node.router.interest.of(top.link_to(middle)) >= {"x"}
    leaf.node.dispatcher.remove("x", listener)
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


def test_how_many_answer_is_told_over_all_levels(line):
    top, middle, leaf = line
    leaf.answer("x", lambda message: 1)
    middle.answer("x", lambda message: 1)
    settle(*line)
    assert top.node.router.answerers_below("x") == 2
    assert middle.node.router.answerers_below("x") == 1
    leaf.asks.answering.remove("x")
    settle(*line)
    assert top.node.router.answerers_below("x") == 1


def test_of_more_events_than_the_parent_keeps_the_rest_is_not_told_and_the_link_stays(line, monkeypatch):
    monkeypatch.setattr("ipevents._node.presence.MAX_INTEREST", 3)
    monkeypatch.setattr("ipevents._core.topology.MAX_INTEREST", 3)
    top, middle, leaf = line
    for event in "abc":
        leaf.answer(event, lambda message: 1)
    settle(*line)
    middle.answer("d", lambda message: 1)
    middle.answer("a", lambda message: 1)
    settle(*line)
    below = top.node.router.answerers_below
    assert [below(event) for event in "abcd"] == [2, 1, 1, 0]
    leaf.asks.answering.remove("b")
    settle(*line)
    middle.answer("e", lambda message: 1)  # there is room now
    settle(*line)
    assert [below(event) for event in "abcde"] == [2, 0, 1, 0, 1]
    assert top.closed.empty()


def test_after_a_reconnect_a_parent_is_told_the_sums_of_all(relay):
    with relay.node.lock:
        relay.node.router.peer_answers(relay.child, "x", 2, 2)
        relay.node.router.own_answers("y", 1)
        relay.parent.outbox.clear()
        relay.node.presence._tell_interest()
    told = [tuple(record) for record in queued(relay, relay.parent)]
    assert [record for record in told if record[0] == ANSWERS] == [(ANSWERS, "x", 2, 2), (ANSWERS, "y", 1, 1)]


@pytest.mark.parametrize("event", [*sorted(RESERVED_EVENTS), "error"])
def test_nobody_is_told_of_listeners_for_what_cannot_be_sent(line, event):
    top, middle, leaf = line
    leaf.on(event, lambda message, *args: None)
    settle(*line)
    assert event not in top.node.router.interest.of(top.link_to(middle))


def test_a_weak_receiver_that_is_collected_inside_the_state_lock_withdraws_its_interest(line):
    top, middle, _ = line

    def receiver(message):
        """Nothing."""

    middle.node.dispatcher.signal("x").connect(receiver)
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    with middle.node.lock:
        del receiver
        gc.collect()
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


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


@pytest.mark.parametrize("is_early", [True, False])
def test_what_only_a_wait_wants_comes_down_to_it(places, is_early):
    top, child = places("top"), places("child")
    if is_early:
        child.node.dispatcher.begin_wait("x", child.heard.put)
    join(top, child)
    if not is_early:
        child.node.dispatcher.begin_wait("x", child.heard.put)
    settle(top, child)
    top.send(TO_CHILDS, "x")
    assert child.next().event == "x"
    assert "x" not in child.node.dispatcher.events()


def test_on_and_off_from_inside_change_the_interest_on_leaving(line):
    top, middle, _ = line
    listener = lambda message: None  # noqa: E731
    inside(middle, lambda: middle.on("x", listener))
    settle(*line)
    assert "x" in top.node.router.interest.of(top.link_to(middle))
    inside(middle, lambda: middle.node.dispatcher.remove("x", listener))
    settle(*line)
    assert "x" not in top.node.router.interest.of(top.link_to(middle))


# What goes up, record by record


@pytest.fixture
def relay(places):
    """A place with a parent, to which nothing is written, and with a child that is online."""
    relay = places("relay")
    relay.parent, relay.child = relay.make_parent("top"), relay.make_child("child")
    online(relay, "child")
    return relay


def online(place, *path):
    with place.node.lock:
        place.node.router.online(place.node.router.child_link(path[-1]), path)


def up(place):
    """What waits for the parent; it is taken away."""
    with place.node.lock:
        return [tuple(record) for record in place.parent.outbox.clear()]


def test_before_its_online_a_process_says_what_is_wanted_here_and_below(relay):
    relay.listen("x", "error", "ready", "online", "offline", "parent")
    with relay.node.lock:
        relay.node.router.peer_interest(relay.child, "y", True)
        relay.node.presence.announce()
    interests, last = up(relay)
    assert (interests[0], sorted(interests[1]), last) == (INTERESTS, ["x", "y"], (ONLINE, ("relay",)))
    assert relay.node.announced


def test_where_one_below_wants_everything_so_does_this_process_until_that_one_is_gone(relay):
    relay.listen("x")
    take = relay.node.incoming.controls.take
    take(relay.child, (INTERESTS, ("y",)))
    with relay.node.lock:
        relay.node.presence.announce()
    up(relay)
    take(relay.child, (EVERYTHING,))
    assert up(relay) == [(EVERYTHING,)]
    relay.listen("z")
    assert up(relay) == []
    with relay.node.lock:
        relay.node.presence.announce_again()
    assert up(relay)[0] == (EVERYTHING,)
    with relay.node.lock:
        relay.node.presence.child_gone(relay.child, None)
    assert (INTERESTS, ("x", "z")) in up(relay)
    relay.listen("last")
    assert up(relay) == [(INTEREST, "last", True)]


def test_more_names_than_the_parent_keeps_are_not_sent_one_by_one(relay, monkeypatch):
    monkeypatch.setattr("ipevents._node.presence.MAX_INTEREST", 5)
    relay.listen(*"abcde")
    with relay.node.lock:
        relay.node.presence.announce()
    assert up(relay)[0] == (INTERESTS, tuple("abcde"))
    relay.listen("f")
    with relay.node.lock:
        relay.node.presence.announce_again()
    assert (EVERYTHING,) in up(relay)


def test_more_names_than_the_parent_keeps_are_told_as_every_event_once_and_for_all(relay, monkeypatch):
    monkeypatch.setattr("ipevents._node.presence.MAX_INTEREST", 5)
    relay.node.announced = True
    relay.listen(*"abcde")
    assert up(relay) == [(MORE_INTERESTS, tuple("abcde"))]
    relay.listen("f")
    assert up(relay) == [(EVERYTHING,)]
    relay.listen("g")
    for event in "abcd":
        relay.node.dispatcher.remove(event, None)
    relay.listen("h")
    assert up(relay) == []
    with relay.node.lock:
        relay.node.presence.announce_again()
    assert up(relay)[0] == (INTERESTS, tuple("efgh")), "a new connection begins anew"


def test_a_child_that_changes_its_mind_about_everything_costs_one_record(relay):
    relay.node.announced = True
    relay.listen(*[f"event {number}" for number in range(1000)])
    take = relay.node.incoming.controls.take
    for _ in range(1000):
        take(relay.child, (EVERYTHING,))
        take(relay.child, (INTERESTS, ("q",)))
    with relay.node.lock:
        assert relay.parent.outbox.count == 1
    ((kind, names),) = up(relay)
    assert (kind, len(names)) == (INTERESTS, 1001)


def test_listeners_for_one_answer_each_leave_nothing_in_the_outbox(relay):
    relay.node.announced = True
    for number in range(1000):
        relay.on(f"reply {number}", relay.heard.put)
        relay.node.dispatcher.remove(f"reply {number}", None)
    assert up(relay) == []


def test_after_a_reconnect_all_that_are_online_below_are_announced_top_down(relay):
    relay.make_child("not online")
    online(relay, "leaf", "child")
    with relay.node.lock:
        relay.node.presence.announce_again()
    paths = [("relay",), ("child", "relay"), ("leaf", "child", "relay")]
    assert up(relay) == [(INTERESTS, ()), *((ONLINE, path) for path in paths)]


def test_those_behind_a_cut_are_announced_when_their_session_goes_on(relay):
    online(relay, "leaf", "child")
    with relay.node.lock:
        relay.node.presence.child_away(relay.child)
        up(relay)
        relay.node.presence.announce_again()
        assert up(relay) == [(INTERESTS, ()), (ONLINE, ("relay",))]
        relay.node.presence.child_back(relay.child)
    assert up(relay) == [(ONLINE, ("child", "relay")), (ONLINE, ("leaf", "child", "relay"))]


@pytest.mark.parametrize("way", [Up.AWAY, Up.NONE])
def test_where_no_way_leads_up_nothing_is_said_and_all_of_it_is_noted(relay, way):
    relay.listen("x")
    with relay.node.lock:
        if way is Up.NONE:
            relay.node.router.remove_parent()
        else:
            relay.node.router.set_up(way)
        presence = relay.node.presence
        presence.announce()
        presence.advertise(relay.node.router.own_interest("y", True))
        presence.tell_up((ONLINE, ("child", "relay")))
        assert sorted(relay.node.router.interest.all()) == ["x", "y"]
    assert up(relay) == []


def test_a_change_that_changes_nothing_wakes_nobody(relay, monkeypatch):
    prompted = []
    monkeypatch.setattr(relay.parent, "prompt", lambda: prompted.append(1))
    with relay.node.lock:
        relay.node.presence.advertise(Change())
        assert prompted == []
        relay.node.presence.advertise(Change(advertise=("x",)))
        relay.node.presence.advertise(Change(withdraw=("x",)))
    assert prompted == [1, 1]


def test_a_new_name_is_told_to_the_children_and_not_to_the_parent(relay):
    with relay.node.lock:
        relay.node.presence.rename("new")
    assert queued(relay, relay.child) == [(PARENT, "new")]
    assert up(relay) == []
    assert relay.node.router.path == ("new",)


def test_interest_is_advertised_from_the_online_to_the_stop(relay):
    listener = relay.heard.put
    relay.on("before", listener)
    assert up(relay) == []
    relay.node.announced = True
    relay.on("during", listener).on("error", listener).on("online", listener)
    assert up(relay) == [(INTEREST, "during", True)]
    relay.node.stage = Stage.STOPPING
    relay.on("after", listener)
    assert up(relay) == []


def test_who_looks_after_a_child_is_told_that_an_event_has_no_listener_any_more(relay):
    unheard = []
    presence = Presence(relay.node, relay.node.events, lambda: unheard.append(1))
    for event in ("x", "error"):
        relay.on(event, relay.heard.put)
        presence.interest_changed(event)
        assert unheard == []
        relay.node.dispatcher.remove(event, None)
        presence.interest_changed(event)
        assert unheard == [1]
        unheard.clear()


# Quiet processes


@pytest.fixture
def hushed(places):
    """A top, a middle with a quiet child, and a leaf below that; all listen to who comes and goes."""
    line = [places(pid).listen("online", "offline") for pid in ("top", "middle", "quiet", "leaf")]
    top, middle, quiet, leaf = line
    top.node.announced = True
    join(top, middle)
    join(middle, quiet, is_quiet=True)
    join(quiet, leaf)
    settle(*line)
    return line


def heard(place):
    """What was heard so far of who came and went, by whom: the events, and the pids of the processes."""
    found = []
    while not place.heard.empty():
        event, args, pids = place.heard.get_nowait()
        found.append((event, args[0] if args else pids[0]))
    return found


def test_a_quiet_process_is_heard_by_no_listener_above_and_what_is_below_it_is(hushed):
    top, middle, quiet, leaf = hushed
    assert heard(top) == [("online", "middle"), ("online", "leaf")]
    assert heard(middle) == heard(quiet) == [("online", "leaf")]
    assert top.node.router.netmap.as_dict() == {"middle": {"quiet": {"leaf": {}}}}
    assert middle.node.router.child_pids() == []
    assert top.node.router.quiet_at(top.link_to(middle)) == {("quiet", "middle")}


def test_messages_from_and_to_a_quiet_process_arrive_at_all_levels(hushed):
    top, _, quiet, leaf = hushed
    for place in hushed:
        place.listen("x")
        heard(place)
    settle(*hushed)
    quiet.send(TO_PARENTS, "x")
    assert top.next() == ("x", (), ("quiet", "middle", "top"))
    top.send_to(["quiet", "middle"], "x")
    assert quiet.next() == ("x", (), ("top", "middle", "quiet"))
    top.send_to(["leaf", "quiet", "middle"], "x")
    assert leaf.next() == ("x", (), ("top", "middle", "quiet", "leaf"))


def test_the_end_of_a_quiet_process_is_heard_of_those_below_it_only(hushed):
    top, middle, quiet, _ = hushed
    for place in (top, middle):
        heard(place)
    middle.link_to(quiet).disconnect()
    for place in (top, middle):
        assert place.next()[:2] == ("offline", ("leaf",))
    told = threading.Event()
    middle.node.events.notify(told.set)
    assert told.wait(CEILING)
    settle(top, middle)
    assert top.node.router.netmap.as_dict() == {"middle": {}}
    assert heard(top) == heard(middle) == []


def test_where_the_parent_of_a_quiet_process_goes_nothing_is_heard_of_that(hushed):
    top, middle, _, _ = hushed
    heard(top)
    top.link_to(middle).disconnect()
    assert [top.next()[1] for _ in range(2)] == [("leaf",), ("middle",)]
    assert top.node.router.netmap.as_dict() == {}
    assert heard(top) == []


@pytest.fixture
def quiet_relay(relay):
    """The relay with a quiet leaf below its child, and a quiet child of its own."""
    online(relay, "leaf", "child")
    relay.own = relay.make_child("own", is_quiet=True)
    online(relay, "own")
    take = relay.node.incoming.controls.take
    take(relay.child, (QUIET, ("hush", "child")))
    take(relay.child, (ONLINE, ("hush", "child")))
    up(relay)
    return relay


HUSH = [(kind, ("hush", "child", "relay")) for kind in (QUIET, ONLINE)]


def test_after_a_reconnect_the_parent_is_told_who_is_quiet(quiet_relay):
    with quiet_relay.node.lock:
        quiet_relay.node.presence.announce_again()
    told = up(quiet_relay)
    assert told[:3] == [(INTERESTS, ()), (ONLINE, ("relay",)), (ONLINE, ("child", "relay"))]
    for quiet in (HUSH, [(QUIET, ("own", "relay")), (ONLINE, ("own", "relay"))]):
        at = told.index(quiet[0])
        assert told[at : at + 2] == quiet
    assert len(told) == 8


def test_of_a_quiet_process_behind_a_cut_only_those_above_are_told(quiet_relay):
    relay = quiet_relay
    with relay.node.lock:
        notices = relay.node.presence.child_away(relay.child)
    gone = [record[2] for record in up(relay)]
    assert (sorted(gone[:2]), gone[2]) == ([("hush", "child"), ("leaf", "child")], ("child",))
    relay.listen("offline")
    for notice in notices:
        notice()
    assert heard(relay) == [("offline", "leaf"), ("offline", "child")]
    with relay.node.lock:
        back = relay.node.presence.child_back(relay.child)
    assert sorted(back) == [("child", "relay"), ("leaf", "child", "relay")]
    told = up(relay)
    assert told[0] == (ONLINE, ("child", "relay"))
    assert told[told.index(HUSH[0]) :][:2] == HUSH
    assert len(told) == 4


def test_before_the_first_connection_a_quiet_process_is_told_as_a_whole_or_not_at_all(relay, monkeypatch):
    monkeypatch.setattr("ipevents._core.shares.SHARE_BYTES", 2000)
    take = relay.node.incoming.controls.take
    for number in range(COMES_AND_GOES):
        take(relay.child, (QUIET, (str(number), "child")))
        take(relay.child, (ONLINE, (str(number), "child")))
    told = up(relay)
    assert 0 < len(told) < COMES_AND_GOES
    assert [kind for kind, _ in told] == [QUIET, ONLINE] * (len(told) // 2)
    with relay.node.lock:
        relay.node.presence.announce_again()
    assert len(up(relay)) == 2 * COMES_AND_GOES + 3


# A parent that does not read

COMES_AND_GOES = 50


@pytest.fixture
def churning(places, monkeypatch):
    """A top that reads nothing of a relay, which has two children: one whose processes come and go."""
    monkeypatch.setattr("ipevents._core.shares.SHARE_BYTES", 2000)
    top, relay = places("top"), places("relay")
    relay.parent = join(top, relay)[1]
    top.listen("online", "offline")
    relay.churning, relay.other = Raw(relay, "churning"), Raw(relay, "other")
    for child in (relay.churning, relay.other):
        child.send((ONLINE, (child.pid,)))
        assert top.next() == ("online", (), (child.pid, "relay", "top"))
    settle(top, relay)
    jam(relay, relay.parent)
    yield top, relay
    for child in (relay.churning, relay.other):
        child.socket.close()


def come_and_go(child):
    for number in range(COMES_AND_GOES):
        pid = str(number)
        child.send((ONLINE, (pid, child.pid)), (OFFLINE, (child.pid,), (pid,), None))


def test_news_of_one_child_wait_in_a_bounded_number_and_are_all_told_in_order(churning, monkeypatch):
    top, relay = churning
    waiting = watch_waits(monkeypatch, relay.parent)
    come_and_go(relay.churning)
    assert waiting.wait(CEILING)
    with relay.node.lock:
        assert 0 < relay.parent.outbox.count < COMES_AND_GOES
    free(relay, relay.parent)
    for number in range(COMES_AND_GOES):
        pid = str(number)
        assert top.next() == ("online", (), (pid, "churning", "relay", "top"))
        assert top.next() == ("offline", (pid,), ("churning", "relay", "top"))


def test_another_child_does_not_wait_for_it(churning, monkeypatch):
    top, relay = churning
    relay.listen("x")
    waiting = watch_waits(monkeypatch, relay.parent)
    come_and_go(relay.churning)
    assert waiting.wait(CEILING)
    relay.other.send((ONLINE, ("leaf", "other")), (TO_PARENTS, ("leaf", "other"), "x", None, [()]))
    assert relay.next() == ("x", (), ("leaf", "other", "relay"))
    assert (ONLINE, ("leaf", "other", "relay")) in queued(relay, relay.parent)
    free(relay, relay.parent)


def test_a_stop_ends_the_wait_and_what_comes_after_it_is_put(churning, monkeypatch):
    top, relay = churning
    relay.listen("x")
    waiting = watch_waits(monkeypatch, relay.parent)
    come_and_go(relay.churning)
    relay.churning.send((TO_PARENTS, ("churning",), "x", None, [()]))
    assert waiting.wait(CEILING)
    with relay.node.lock:
        relay.node.stage = Stage.STOPPING
        relay.parent.wake_waiters()
    assert relay.next()[0] == "x"
    with relay.node.lock:
        assert relay.parent.outbox.count > 2 * COMES_AND_GOES
    free(relay, relay.parent)


def test_while_no_connection_was_made_yet_no_more_than_a_share_waits_and_nobody_waits(relay, monkeypatch):
    monkeypatch.setattr("ipevents._core.shares.SHARE_BYTES", 2000)
    take = relay.node.incoming.controls.take
    for number in range(COMES_AND_GOES):
        take(relay.child, (ONLINE, (str(number), "child")))
    assert 0 < len(up(relay)) < COMES_AND_GOES // 2
    with relay.node.lock:
        relay.node.presence.announce_again()
    assert len(up(relay)) == COMES_AND_GOES + 3, "all of them, the child, this process, and its interest"


# Outages


def test_each_outage_is_reported_once_and_each_loss_is_counted(relay):
    relay.hear_errors()
    with relay.node.lock:
        relay.node.router.set_up(Up.AWAY)
    for outage in (1, 2):
        with relay.node.lock:
            for count in (1, 2):
                relay.node.presence.lose_up(count)
        assert "the server top is away" in str(relay.next_error())
        assert relay.parent.dropped == {"disconnected": 3 * outage}
        with relay.node.lock:
            relay.node.presence.announce_again()
    assert relay.errors.empty()


# Links that are gone


def test_the_end_of_a_child_is_told_for_all_below_it_and_its_exit_code_for_itself(relay):
    got = []
    relay.on("offline", lambda message, pid: got.append((pid, message.exitcode)))
    online(relay, "leaf", "child")
    relay.send_child("child", "x", 1)
    with relay.node.lock:
        relay.node.router.peer_interest(relay.child, "y", True)
        was_online, notices = relay.node.presence.child_gone(relay.child, 3, "closed")
    assert was_online
    assert up(relay) == [
        (INTEREST, "y", False),
        (OFFLINE, ("relay",), ("leaf", "child"), None),
        (OFFLINE, ("relay",), ("child",), 3),
    ]
    for notice in notices:
        notice()
    assert got == [("leaf", None), ("child", 3)]
    assert relay.child.dropped == {"closed": 1}
    assert len(relay.child.outbox) == 0


def test_a_child_that_was_never_online_ends_without_a_word(relay):
    link = relay.make_child("other")
    with relay.node.lock:
        assert relay.node.presence.child_gone(link, 1) == (False, [])
    assert up(relay) == []


def test_a_child_is_gone_only_once(relay):
    with relay.node.lock:
        relay.node.presence.child_gone(relay.child, None)
        assert relay.node.presence.child_gone(relay.child, None) == (False, [])
    assert up(relay) == [(OFFLINE, ("relay",), ("child",), None)]


def test_whoever_waits_for_room_in_the_link_of_a_child_that_is_gone_goes_on(relay, monkeypatch):
    woken = []
    monkeypatch.setattr(relay.child, "wake_waiters", lambda: woken.append(1))
    with relay.node.lock:
        relay.node.presence.child_gone(relay.child, None)
    assert woken == [1]


def test_a_link_that_is_retired_leaves_its_counters_and_is_joined_by_the_stop(relay):
    node, other = relay.node, relay.make_child("other")
    for number, link in enumerate((relay.child, other), 1):
        link.acknowledged = link.sent = link.forwarded = link.delivered = link.lost = number
        link.acknowledged_as, link.received = (0, 0, number, 0), 5 * number
        link.turn_out(UNHEARD, number)
        link.turn_out(FORWARDED, number)
        link.end_here("malformed", number)
        link.let_go = number
        link.drop("full", number)
        link.drop(f"only {number}")
    with node.lock:
        node.presence.retire(relay.child)
    assert relay.child.ended
    assert relay.child.join(Deadline(CEILING))
    with node.lock:
        node.presence.retire(other)
    assert node.past["", "sent"] == 1
    stats = snapshot(node, 0, int)
    assert stats["past"] == {
        "sent": 3,
        "acknowledged": 3,
        "acknowledgedAs": {"delivered": 0, "unheard": 0, "unreadable": 0, "forwarded": 3, "dropped": 0},
        "lost": 3,
        "dropped": {"full": 3, "only 1": 1, "only 2": 1},
        "received": 15,
        "receivedAs": {"delivered": 3, "unheard": 3, "unreadable": 0, "forwarded": 3, "dropped": 6},
        "forwarded": 3,
    }
    assert stats["dropped"] == {"malformed": 3, "stopped": 3}
    assert node.retired == [other], "the first has no thread any more to be waited for"
    assert snapshot(node, 0, int)["past"] == stats["past"], "however often they are looked at"
