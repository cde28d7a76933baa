"""Control records: what a node does with them, and what it delivers and passes on."""

from __future__ import annotations

import queue
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import CEILING, FULL, attach, join, queued, settle

from ipevents._core.control_checks import check_control
from ipevents._core.messages import (
    ACKNOWLEDGED,
    ANSWERS,
    CANCEL,
    CONTROL_ITEMS,
    EVERYTHING,
    FAILED,
    FAULT,
    FINISHED,
    GOODBYE,
    INTEREST,
    INTERESTS,
    MAX_IDS,
    MAX_INTEREST,
    MAX_PID,
    MAX_TEXT,
    MORE_INTERESTS,
    OFFLINE,
    ONLINE,
    PARENT,
    PROGRAM,
    QUIET,
    REPORT,
    RESUMED,
    STOP,
    TAKE_BACK,
    TO_CHILDS,
    TO_PARENTS,
)
from ipevents._exceptions import Forged, ProtocolError, Undeliverable, UnknownProcess
from ipevents._node.controls import put_report


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
    leaf.links[0].disconnect()
    assert top.next() == ("offline", ("leaf",), ("middle", "top"))


def test_a_record_about_a_process_goes_to_who_has_the_link(places, raw):
    top = places("top").listen("x")
    raw(top).send((FAILED, "news", False), (TO_PARENTS, ("raw",), "x", None, [()]))
    top.next()
    assert top.controls == [(FAILED, "news", False)]


def test_a_record_of_a_kind_that_there_is_not_ends_the_link(places, raw):
    top = places("top")
    raw(top).send((99, "news"))
    assert "a record of the kind 99, which there is not" in str(top.next_closed()[1])
    assert top.controls == []


# What a record does


@pytest.fixture
def relay(places):
    """A place with a parent and a child that is online with a leaf below it, both without a connection."""
    relay = places("relay")
    relay.parent, relay.child = relay.make_parent("top"), relay.make_child("child")
    take(relay, relay.child, (ONLINE, ("child",)))
    take(relay, relay.child, (ONLINE, ("leaf", "child")))
    with relay.node.lock:
        relay.parent.outbox.clear()
        relay.child.outbox.clear()
        relay.controls.clear()
    return relay


def take(place, link, record):
    place.node.incoming.controls.take(link, record)


BELOW = {
    "interest": (INTEREST, "x", True),
    "interests": (INTERESTS, ("x",)),
    "more interests": (MORE_INTERESTS, ("x",)),
    "everything": (EVERYTHING,),
    "answers": (ANSWERS, "x", 2, 2),
    "online": (ONLINE, ("child",)),
    "online of a grandchild": (ONLINE, ("leaf", "child")),
    "a quiet grandchild": (QUIET, ("new", "child")),
    "offline": (OFFLINE, ("child",), ("leaf",), 0),
}


@pytest.mark.parametrize("name", BELOW)
def test_what_still_comes_from_a_child_that_is_gone_changes_nothing(relay, name):
    relay.listen("online", "offline")
    with relay.node.lock:
        relay.node.presence.child_gone(relay.child, None)
        relay.parent.outbox.clear()
    version = relay.node.router.version
    take(relay, relay.child, BELOW[name])
    assert relay.node.router.version == version
    assert queued(relay, relay.parent) == queued(relay, relay.child) == relay.controls == []
    assert relay.heard.empty()


@pytest.mark.parametrize("name", BELOW)
def test_a_parent_has_no_say_in_what_is_below_us(relay, name):
    with pytest.raises(Forged):
        take(relay, relay.parent, BELOW[name])


def test_interest_goes_up_when_it_begins_and_when_it_ends_and_not_in_between(relay):
    for record in [(INTEREST, "x", True), (MORE_INTERESTS, ("x", "y")), (INTEREST, "x", True)]:
        take(relay, relay.child, record)
    assert queued(relay, relay.parent) == [(MORE_INTERESTS, ("x", "y"))]
    with relay.node.lock:
        relay.parent.outbox.clear()
    take(relay, relay.child, (INTERESTS, ("y", "z")))
    assert sorted(queued(relay, relay.parent)) == [(INTEREST, "x", False), (INTEREST, "z", True)]


def test_how_many_answer_goes_up_as_a_sum_whenever_it_changes(relay):
    with relay.node.lock:
        relay.node.router.own_answers("x", 1)
    take(relay, relay.child, (ANSWERS, "x", 2, 2))
    assert queued(relay, relay.parent) == [(ANSWERS, "x", 3, 3)]
    with relay.node.lock:
        relay.parent.outbox.clear()
    take(relay, relay.child, (ANSWERS, "x", 2, 2))
    assert queued(relay, relay.parent) == []
    take(relay, relay.child, (ANSWERS, "x", 0, 0))
    assert queued(relay, relay.parent) == [(ANSWERS, "x", 1, 1)]


def test_more_answerers_than_there_can_be_are_refused(relay):
    take(relay, relay.child, (ANSWERS, "x", 1 << 20, 1 << 20))
    refuses(relay, relay.child, (ANSWERS, "x", (1 << 20) + 1, 1))
    take(relay, relay.child, (ANSWERS, "x", 1, 1 << 30))
    refuses(relay, relay.child, (ANSWERS, "x", 1, (1 << 30) + 1))


def test_a_cancelled_request_that_is_not_here_is_remembered_until_it_comes(relay):
    take(relay, relay.child, (CANCEL, (5, 7)))
    take(relay, relay.parent, (CANCEL, (5,)))  # of both sides
    early = [
        (link.name, number) for link, those in relay.node.asks.answering._early.items() for number in those
    ]
    assert early == [("child", 5), ("child", 7), ("top", 5)]


def test_no_more_requests_are_cancelled_with_one_record_than_that(relay):
    take(relay, relay.child, (CANCEL, tuple(range(MAX_IDS))))
    refuses(relay, relay.child, (CANCEL, tuple(range(MAX_IDS + 1))))


def test_an_online_is_passed_on_and_delivered_and_only_a_childs_own_is_answered(relay):
    relay.listen("online")
    take(relay, relay.child, (ONLINE, ("new", "child")))
    assert queued(relay, relay.parent) == [(ONLINE, ("new", "child", "relay"))]
    assert queued(relay, relay.child) == []
    second = relay.make_child("second")
    take(relay, second, (ONLINE, ("second",)))
    assert queued(relay, second) == [(PARENT, "relay")]
    assert [relay.next()[2] for _ in range(2)] == [("new", "child", "relay"), ("second", "relay")]
    assert relay.controls == [(ONLINE, ("second",))]


def test_an_offline_is_passed_on_and_delivered_with_its_exit_code(relay):
    got = queue.Queue()
    relay.on("offline", lambda message, pid: got.put((pid, message.exitcode, message.pids)))
    take(relay, relay.child, (OFFLINE, ("child",), ("leaf",), -9))
    assert queued(relay, relay.parent) == [(OFFLINE, ("child", "relay"), ("leaf",), -9)]
    assert got.get_nowait() == ("leaf", -9, ("child", "relay"))
    assert relay.node.router.netmap.as_dict() == {"child": {}}


def test_of_a_quiet_process_only_those_above_are_told_and_no_listener(relay):
    relay.listen("online", "offline")
    take(relay, relay.child, (QUIET, ("new", "child")))
    assert queued(relay, relay.parent) == [], "it is told together with the online"
    take(relay, relay.child, (ONLINE, ("new", "child")))
    told = [(QUIET, ("new", "child", "relay")), (ONLINE, ("new", "child", "relay"))]
    assert queued(relay, relay.parent) == told
    assert relay.node.router.netmap.as_dict() == {"child": {"leaf": {}, "new": {}}}
    take(relay, relay.child, (ONLINE, ("below", "new", "child")))
    assert relay.next() == ("online", (), ("below", "new", "child", "relay"))
    take(relay, relay.child, (OFFLINE, ("new", "child"), ("below",), 0))
    take(relay, relay.child, (OFFLINE, ("child",), ("new",), 0))
    assert relay.next() == ("offline", ("below",), ("new", "child", "relay"))
    assert queued(relay, relay.parent)[-1] == (OFFLINE, ("child", "relay"), ("new",), 0)
    assert relay.heard.empty()


def test_a_quiet_child_of_this_process_is_answered_and_heard_by_no_listener(relay):
    relay.listen("online")
    second = relay.make_child("second", is_quiet=True)
    take(relay, second, (ONLINE, ("second",)))
    assert queued(relay, second) == [(PARENT, "relay")]
    assert queued(relay, relay.parent) == [(QUIET, ("second", "relay")), (ONLINE, ("second", "relay"))]
    assert relay.controls == [(ONLINE, ("second",))]
    assert relay.heard.empty()


def test_who_says_that_one_is_quiet_and_brings_another_one_is_hung_up(places, raw):
    top = places("top").listen("online")
    child = raw(top)
    child.send((ONLINE, ("raw",)), (QUIET, ("one", "raw")), (ONLINE, ("other", "raw")))
    assert isinstance(top.next_closed()[1], Forged)
    assert top.next()[2] == ("raw", "top")
    assert top.heard.empty()


def test_the_asks_are_told_when_a_child_comes_online_and_hold_the_lock(relay, monkeypatch):
    settled = []
    monkeypatch.setattr(relay.node.asks, "child_settled", lambda: settled.append(relay.node.inside()))
    take(relay, relay.child, (ONLINE, ("new", "child")))
    assert settled == [], "it is somebody else's"
    for pid, is_quiet in [("second", False), ("third", True)]:
        take(relay, relay.make_child(pid, is_quiet=is_quiet), (ONLINE, (pid,)))
    assert settled == [True, True]


def test_the_parents_answer_is_delivered_and_only_a_new_name_is_not(relay):
    relay.listen("parent")
    relay.node.incoming.holding = True  # until the parent has answered
    take(relay, relay.parent, (PARENT, "new"))
    assert (relay.parent.name, relay.node.router.parent_pid()) == ("new", "new")
    assert relay.heard.empty()
    assert relay.node.incoming.holding
    relay.node.announced = True
    take(relay, relay.parent, (PARENT, "new"))
    assert relay.next() == ("parent", ("new",), ("new", "relay"))
    assert not relay.node.incoming.holding


def test_a_parent_with_the_name_of_a_child_is_called_otherwise(relay):
    relay.node.announced = True
    relay.listen("parent")
    take(relay, relay.parent, (PARENT, "child"))
    assert relay.next()[1] == ("child-parent",)
    assert relay.parent.name == "child-parent"


def test_nobody_else_says_that_it_is_the_parent(relay):
    with pytest.raises(Forged, match="it is the parent"):
        take(relay, relay.child, (PARENT, "me"))
    assert relay.node.router.parent_pid() == "top"


# What cannot be: of another sender, at another time, or with items of wrong types

HUGE = 10**10_000
DEEP: tuple = ()
for _ in range(100_000):
    DEEP = (DEEP,)

NO_VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "a huge number": HUGE,
    "a huge negative number": -HUGE,
    "a float": 1.0,
    "not a number": float("nan"),
    "bytes": b"leaf",
    "no text": "",
    "a text": "leaf",
    "a text of several lines": "x\n  \x1b[31m4711",
    "a text of two words": "two words",
    "a text that no terminal may have": "\ud800",
    "a path with such a text": ("x\n4711", "child"),
    "a long text": "x" * (MAX_TEXT + 1),
    "an empty tuple": (),
    "a tuple of a number": (1,),
    "a tuple of nothing": (None,),
    "a tuple of an empty text": ("",),
    "a tuple of bytes": (b"child",),
    "a tuple of a long text": ("x" * 1000, "child"),
    "a long tuple": ("child",) * 5000,
    "a nested tuple": (("leaf",), "child"),
    "a deep tuple": DEEP,
    "a tuple in the place of counts": (0, 0, 0, -1),
    "floats as counts": (0.0, 0.0, 0.0, 0.0),
    "truths as counts": (False, False, False, False),
    "huge counts": (HUGE, 0, 0, 0),
    "a list": ["child"],
    "a set": {"child"},
    "a dict": {"child": 1},
}
TEXTS = [name for name, value in NO_VALUES.items() if name.startswith("a text")]
# One good record of each kind, for the parent or the child that may send it, and the values of each item that
# may stand there. Any other value of NO_VALUES may not.
GOOD = {
    INTEREST: ("child", ("x", True), {"event": {*TEXTS}, "wanted": {"true", "false"}}),
    INTERESTS: (
        "child",
        (("x",),),
        {"events": {"an empty tuple", "a long tuple", "a path with such a text"}},
    ),
    MORE_INTERESTS: (
        "child",
        (("x",),),
        {"events": {"an empty tuple", "a long tuple", "a path with such a text"}},
    ),
    EVERYTHING: ("child", (), {}),
    ONLINE: ("child", (("new", "child"),), {"path": set()}),
    OFFLINE: (
        "child",
        (("child",), ("leaf",), 0),
        {"path": set(), "gone": set(), "exitcode": {"none", "zero", "one", "minus one"}},
    ),
    PARENT: ("parent", ("top",), {"pid": {"a text"}}),
    STOP: ("parent", (1000,), {"milliseconds": {"zero", "one"}}),
    REPORT: (
        "child",
        ((), "x", "leaf", None, "a cause"),
        {
            "route": {"an empty tuple"},
            "event": {*TEXTS},
            "at": {"a text"},
            "target": {"none", "a text"},
            "cause": {"no text", *TEXTS},
        },
    ),
    FAILED: ("child", ("text", False), {"text": {"no text", *TEXTS}, "refused": {"true", "false"}}),
    FINISHED: ("child", (False,), {"goes_on": {"true", "false"}}),
    FAULT: ("child", ("text",), {"text": {"no text", *TEXTS}}),
    ACKNOWLEDGED: ("child", (0, (0, 0, 0, 0)), {"number": {"zero"}, "outcomes": set()}),
    RESUMED: ("child", (0, (0, 0, 0, 0)), {"number": set(), "outcomes": set()}),
    GOODBYE: ("child", (), {}),
    ANSWERS: (
        "child",
        ("x", 1, 1),
        {"event": {*TEXTS}, "answerers": {"zero", "one"}, "capacity": {"zero", "one"}},
    ),
    CANCEL: ("child", ((1, 2),), {"ids": {"a tuple of a number"}}),
    QUIET: ("child", (("new", "child"),), {"path": set()}),
    TAKE_BACK: ("parent", ("x", (1, 2)), {"event": {*TEXTS}, "ids": {"a tuple of a number"}}),
}
WRONG_ITEMS = [
    pytest.param(kind, name, wrong, id=f"{kind}-{name}-{wrong}")
    for kind, (_, _, items) in GOOD.items()
    for name, right in items.items()
    for wrong in NO_VALUES
    if wrong not in right
]


def tables(place):
    """All that a control record could change."""
    router = place.node.router
    with place.node.lock:
        return (
            router.version,
            router.netmap.as_dict(),
            router.netmap.announced(),
            router.interest.all(),
            router.interest.is_everything,
            router.answerers.sums(),
            list(place.node.asks.answering._early),
            list(place.node.asks.answering.claims._taken),
            {
                link: (each.pid, each.online, each.below, each.next_quiet)
                for link, each in router.neighbours.items()
            },
            router.names.copy(),
            router.parent_names.copy(),
            [list(link.outbox._all()) for link in place.links],
            [(link.name, link.acknowledged, link.lost, link.outcomes) for link in place.links],
            place.node.incoming.controls.undeliverable,
            list(place.controls),
            list(place.heard.queue),
        )


def refuses(place, link, record):
    before = tables(place)
    with pytest.raises(ProtocolError):
        take(place, link, record)
    assert tables(place) == before


def test_the_table_has_each_kind_and_each_item():
    assert {kind: tuple(items) for kind, (_, _, items) in GOOD.items()} == CONTROL_ITEMS


@pytest.fixture
def wired(relay):
    """The relay, its child over a connection, so that there is something to be acknowledged."""
    ours, theirs = socket.socketpair()
    attach(relay.child, ours)
    relay.listen("online", "offline", "parent")
    yield relay
    theirs.close()


@pytest.mark.parametrize(("kind", "name", "wrong"), WRONG_ITEMS)
def test_no_item_has_another_type_or_size_than_its_own(wired, kind, name, wrong):
    sender, values, _ = GOOD[kind]
    items = dict(zip(CONTROL_ITEMS[kind], values, strict=True)) | {name: NO_VALUES[wrong]}
    refuses(wired, getattr(wired, sender), (kind, *items.values()))


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind not in (RESUMED, GOODBYE)])
def test_what_the_table_calls_good_is_taken(wired, kind):
    sender, values, items = GOOD[kind]
    for name, right in items.items():
        for value in right:
            given = dict(zip(CONTROL_ITEMS[kind], values, strict=True)) | {name: NO_VALUES[value]}
            check_control((kind, *given.values()), is_parent=sender == "parent", is_public=False)
    take(wired, getattr(wired, sender), (kind, *values))


@pytest.mark.parametrize("kind", GOOD)
def test_no_record_has_more_items_or_fewer(wired, kind):
    sender, values, _ = GOOD[kind]
    refuses(wired, getattr(wired, sender), (kind, *values, 1))
    if values:
        refuses(wired, getattr(wired, sender), (kind, *values[:-1]))


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind not in (REPORT, ACKNOWLEDGED, CANCEL)])
def test_nobody_says_what_only_the_other_side_may_say(wired, kind):
    sender, values, _ = GOOD[kind]
    refuses(wired, wired.parent if sender == "child" else wired.child, (kind, *values))


@pytest.mark.parametrize("kind", [13, 15, 16.0, float(ONLINE), 999, float("inf"), HUGE], ids=range(7))
def test_a_kind_that_there_is_not_is_refused(wired, kind):
    refuses(wired, wired.child, (kind, ("new", "child")))


@pytest.mark.parametrize("kind", [STOP, FAILED, FINISHED, FAULT, PROGRAM])
def test_what_is_about_a_process_has_no_place_between_client_and_server(wired, kind):
    wired.child.role, wired.parent.role = "client", "server"
    sender, values, _ = GOOD.get(kind, ("parent", ((), "", None, [b"payload"]), {}))
    refuses(wired, getattr(wired, sender), (kind, *values))
    wired.child.role = wired.parent.role = ""
    take(wired, getattr(wired, sender), (kind, *values))


@pytest.mark.parametrize(
    "record",
    [
        (PROGRAM,),
        (PROGRAM, (), "", None),
        (PROGRAM, (), "", None, []),
        (PROGRAM, (), "", None, (b"payload",)),
        (PROGRAM, (), "", None, [b"payload", b"payload"]),
        (PROGRAM, ("top",), "", None, [b"payload"]),
        (PROGRAM, (), "x", None, [b"payload"]),
        (PROGRAM, (), "", ("a", ("b",)), [b"payload"]),
        (PROGRAM, DEEP, DEEP, DEEP, [b"payload"]),
    ],
    ids=range(9),
)
def test_a_program_that_has_not_the_items_of_one_is_refused(wired, record):
    refuses(wired, wired.parent, record)


@pytest.mark.parametrize("role", ["", "client"])
def test_a_session_goes_on_only_where_one_was_interrupted(wired, role):
    wired.child.role = role
    refuses(wired, wired.child, (RESUMED, 0, (0, 0, 0, 0)))


def test_a_goodbye_is_said_over_the_public_socket_only(wired):
    refuses(wired, wired.child, (GOODBYE,))
    wired.child.role = "client"
    take(wired, wired.child, (GOODBYE,))
    assert wired.child.connection.is_leaving


@pytest.mark.parametrize(
    "record",
    [
        (ONLINE, ("child",)),
        (ONLINE, ("leaf", "child")),
        (ONLINE, ("new", "nobody", "child")),
        (ONLINE, ("relay",)),
        (QUIET, ("child",)),
        (QUIET, ("leaf", "child")),
        (QUIET, ("new", "nobody", "child")),
        (QUIET, ("new", "brother")),
        (QUIET, ("brother",)),
        (QUIET, ("relay",)),
        (OFFLINE, ("child",), ("child",), 0),
        (OFFLINE, ("child",), ("nobody",), 0),
        (OFFLINE, ("leaf", "child"), ("leaf",), 0),
        (OFFLINE, ("child",), ("brother",), 0),
        (OFFLINE, ("other",), ("leaf",), 0),
        (ACKNOWLEDGED, 5, (0, 0, 0, 0)),
        (ACKNOWLEDGED, 0, (1, 0, 0, 0)),
    ],
)
def test_what_does_not_fit_the_tree_or_the_books_is_refused(wired, record):
    brother = wired.make_child("brother")
    take(wired, brother, (ONLINE, ("brother",)))
    refuses(wired, wired.child, record)


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.binary(max_size=5),
        st.text(max_size=5),
        st.sampled_from(["child", "leaf", "relay", "top", "x", "new"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.lists(inner, max_size=4), st.dictionaries(st.text(), inner)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    kind=st.one_of(st.sampled_from([*CONTROL_ITEMS, PROGRAM]), st.integers(8, 50)),
    items=st.lists(ANYTHING, max_size=6),
    side=st.sampled_from(["child", "parent"]),
    role=st.sampled_from(["", "client"]),
    how=st.sampled_from([tuple, list]),
)
def test_any_control_record_is_taken_or_refused_and_then_nothing_has_changed(
    wired, kind, items, side, role, how
):
    wired.child.role = wired.parent.role = role
    before = tables(wired)
    try:
        take(wired, getattr(wired, side), how((kind, *items)))
    except ProtocolError:
        assert tables(wired) == before


def test_a_flood_of_names_makes_a_link_want_everything_which_is_said_once_and_works(places, caplog):
    """D15: names of events without end."""
    top, middle, leaf = places("top"), places("middle"), places("leaf")
    join(top, middle)
    join(middle, leaf)
    count = MAX_INTEREST + 100
    for number in range(count):
        leaf.on(f"event {number}", lambda message, value: leaf.heard.put((message.event, value)))
    settle(top, middle, leaf)
    for place, peer in ((middle, leaf), (top, middle)):
        link = place.link_to(peer)
        assert place.node.router.interest.wants_everything(link)
        assert place.node.router.interest.count(link) == 0
    top.send(TO_CHILDS, "event 0", 1)
    top.send(TO_CHILDS, "nobody listens", 2)
    top.send(TO_CHILDS, f"event {count - 1}", 3)
    assert [leaf.next() for _ in range(2)] == [("event 0", 1), (f"event {count - 1}", 3)]
    lines = sorted(record.getMessage() for record in caplog.records)
    text = f"wants more than {MAX_INTEREST} events: it gets every event from now on, which costs more"
    assert lines == [f"! leaf {text}", f"! middle {text}"]
    leaf.links[0].disconnect()
    assert middle.next_closed()[0] == "leaf"
    settle(top, middle)
    assert not top.node.router.interest.is_everything
    assert not middle.node.router.interest.is_everything


def test_a_link_with_too_many_processes_ends_and_all_of_them_with_it(places, raw, monkeypatch):
    monkeypatch.setattr("ipevents._core.topology.MAX_BELOW", 3)
    top, child = places("top").listen("x", "offline"), places("child")
    join(top, child)
    peer = raw(top)
    peer.send((ONLINE, ("raw",)), *((ONLINE, (str(number), "raw")) for number in range(4)))
    pid, error = top.next_closed()
    assert (pid, type(error)) == ("raw", Forged)
    assert "more than 3 processes below it" in str(error)
    assert [top.next()[1] for _ in range(4)] == [("0",), ("1",), ("2",), ("raw",)]
    assert top.node.router.netmap.as_dict() == {"child": {}}
    child.send(TO_PARENTS, "x", 1)
    assert top.next()[:2] == ("x", (1,))


# Reports of what was lost


@pytest.mark.parametrize("target", ["", "\ud800", "\n" * MAX_PID, "two words", "\xe9"])
def test_what_no_pid_can_be_is_refused_at_the_call_and_ends_no_link(line, target):
    top, middle, leaf = line
    for route in ((target, "leaf", "middle"), ("leaf", target, "middle"), ("leaf", target)):
        with pytest.raises(UnknownProcess, match="a pid is printable ASCII"):
            top.send_to(route, "x")
    settle(*line)
    assert top.closed.empty()
    assert middle.closed.empty()


def test_any_pid_that_a_user_writes_is_undeliverable_and_ends_no_link(line):
    top, middle, leaf = line
    target = "x" * MAX_PID
    top.hear_errors()
    top.send_to((target, "leaf", "middle"), "x")
    error = top.next_error()
    assert (type(error), error.at, error.target) == (Undeliverable, "leaf", target)
    settle(*line)
    assert top.closed.empty()
    assert middle.closed.empty()


def test_the_cause_of_another_process_is_shown_in_one_line(relay):
    relay.hear_errors()
    take(relay, relay.child, (REPORT, (), "x", "leaf", "nobody", "a\n\x1b[31m\ud800"))
    error = relay.next_error()
    assert str(error).isprintable()
    assert error.cause == "a\\n\\x1b[31m\\ud800"


def test_a_report_that_has_come_home_is_an_error_and_is_counted(relay):
    relay.hear_errors()
    take(relay, relay.child, (REPORT, (), "x", "leaf", "nobody", "a cause"))
    error = relay.next_error()
    assert (type(error), error.event, error.at, error.target, error.cause) == (
        Undeliverable,
        "x",
        "leaf",
        "nobody",
        "a cause",
    )
    assert relay.node.incoming.controls.undeliverable == 1


def test_a_peer_that_reports_without_end_does_not_feed_the_listeners_of_error_with_each(relay):
    """The first of each cause is told at once, and all are counted."""
    relay.hear_errors()
    for cause in ("full", "gone"):
        for _ in range(500):
            take(relay, relay.child, (REPORT, (), "x", "leaf", None, cause))
    assert [relay.next_error().cause.partition(" (")[0] for _ in range(2)] == ["full", "gone"]
    done = threading.Event()
    relay.node.events.notify(done.set)
    assert done.wait(CEILING)
    assert relay.errors.qsize() < 10, "at most one a second of each"
    assert relay.node.incoming.controls.undeliverable == 1000


def test_a_report_goes_one_hop_further_on_its_way_home(relay):
    relay.hear_errors()
    take(relay, relay.child, (REPORT, ("far", "top"), "x", "leaf", None, "a cause"))
    assert queued(relay, relay.parent) == [(REPORT, ("far",), "x", "leaf", None, "a cause")]
    assert relay.node.incoming.controls.undeliverable == 0


def test_a_report_whose_way_home_is_gone_is_dropped(relay):
    relay.hear_errors()
    take(relay, relay.parent, (REPORT, ("gone",), "x", "top", None, "a cause"))
    settle_notices(relay)
    assert relay.errors.empty()
    assert queued(relay, relay.parent) == queued(relay, relay.child) == []


def settle_notices(place):
    done = threading.Event()
    place.node.events.notify(done.set)
    assert done.wait(CEILING)


def test_a_report_does_not_wait_for_room(relay, small):
    record = (REPORT, (), "x", "relay", None, "a cause")
    with relay.node.lock:
        for _ in range(FULL + 2):
            put_report(relay.child, record)
    assert queued(relay, relay.child) == [record] * FULL
