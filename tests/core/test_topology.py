from __future__ import annotations

import pytest
from fabric import middle_of

from ipevents._core.interest import Change
from ipevents._core.messages import MAX_PATH, MAX_PID
from ipevents._core.topology import Topology, Up
from ipevents._exceptions import Forged, ProtocolError


def middle() -> Topology:
    return middle_of(Topology("me"))


# Paths


def test_a_path_gets_this_process_at_its_end():
    topology = middle()
    topology.online("a link", ("deep", "a"))
    assert topology.accept("a link", ("a",)) == ("a", "me")
    assert topology.accept("a link", ("deep", "a")) == ("deep", "a", "me")
    assert topology.accept("parent link", ("far", "parent")) == ("far", "parent", "me")


FORGED = [
    ("a link", ("b",)),  # another child
    ("a link", ("me",)),
    ("a link", ("parent",)),
    ("a link", ("stranger", "a")),  # nobody announced it
    ("a link", ("deep",)),  # not direct
    ("a link", ("a", "a")),
    ("parent link", ("a",)),
    ("parent link", ("far", "uncle")),
    ("a link", ()),
    ("a link", None),
    ("a link", "a"),
    ("a link", ["a"]),
    ("a link", (["a"],)),
    ("a link", (1,)),
    ("parent link", (1, "parent")),
    ("parent link", ("x",) * MAX_PATH + ("parent",)),
    ("parent link", ("x" * (MAX_PID + 1), "parent")),
]


@pytest.mark.parametrize(("link", "path"), FORGED)
def test_a_path_that_cannot_be_is_forged_also_at_the_second_time(link, path):
    """D7: an origin or a path that is not the peer's."""
    topology = middle()
    topology.online("a link", ("deep", "a"))
    for _ in range(2):
        with pytest.raises(Forged):
            topology.accept(link, path)


def test_who_has_gone_can_no_longer_be_the_origin():
    topology = middle()
    topology.online("a link", ("deep", "a"))
    topology.accept("a link", ("deep", "a"))
    topology.offline("a link", ("a",), ("deep",))
    with pytest.raises(Forged):
        topology.accept("a link", ("deep", "a"))


def test_after_a_rename_paths_end_with_the_new_name():
    topology = middle()
    topology.accept("a link", ("a",))
    topology.rename("new")
    assert topology.accept("a link", ("a",)) == ("a", "new")
    assert topology.names == {"me", "new"}


def test_only_so_many_paths_are_kept(monkeypatch):
    monkeypatch.setattr("ipevents._core.topology._PATHS_BYTES", 10_000)
    topology = middle()
    for hops in (1, 100):
        path = (*map(str, range(hops)), "parent")
        for number in range(100):
            assert topology.accept("parent link", (str(number), *path)) == (str(number), *path, "me")
        assert 0 < len(topology.neighbours["parent link"].paths) <= 10_000 // (64 * hops)


# Who comes and goes


def test_a_child_is_counted_before_it_is_online():
    topology = Topology("me")
    topology.add_child("link", "child")
    assert (topology.child_pids(), topology.child_links(), topology.child_link("child")) == (
        ["child"],
        ["link"],
        "link",
    )
    assert topology.netmap.as_dict() == {"child": {}}


def test_a_child_that_goes_takes_its_descendants_and_its_interest():
    topology = middle()
    topology.online("b link", ("deep", "b"))
    assert topology.remove_child("b link") == ([("deep", "b"), ("b",)], Change(withdraw=("y",)))
    assert topology.child_pids() == ["a", "deaf"]
    assert topology.remove_child("b link") == ([], Change())


def test_a_link_whose_name_went_to_another_takes_nothing_of_it_along():
    topology = middle()
    topology.add_child("second link", "a")
    topology.online("second link", ("a",))
    assert topology.remove_child("a link")[0] == []
    assert topology.child_link("a") == "second link"
    assert ("a",) in topology.netmap.announced()


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("a link", ("b",)),
        ("a link", ("deep",)),
        ("a link", ("deep", "unknown", "a")),
        ("a link", ()),
        ("a link", None),
        ("a link", ["a"]),
        ("a link", (1, "a")),
        ("parent link", ("parent",)),
        ("parent link", ("far", "parent")),
    ],
)
def test_an_online_that_cannot_be_is_forged_and_changes_nothing(link, path):
    topology = middle()
    before = topology.netmap.as_dict()
    with pytest.raises(Forged):
        topology.online(link, path)
    assert topology.netmap.as_dict() == before


@pytest.mark.parametrize(
    ("link", "path", "gone"),
    [
        ("a link", ("b",), ("deep",)),
        ("a link", ("a",), None),
        ("a link", ("a",), "deep"),
        ("a link", ("a",), 5),
        ("a link", ("a",), ["deep"]),
        ("a link", ("a",), ()),
        ("a link", ("a",), ("nobody",)),
        ("a link", ("a",), ("deeper",)),  # it is elsewhere, below another one
        ("a link", ("a",), ("deep",)),  # another one is still below it
        ("a link", ("deep", "a"), ("deep",)),
        ("a link", ("a",), ("deep",) * MAX_PATH),
        ("b link", ("b",), ("deeper", "deep")),  # it is elsewhere, below another child
        ("parent link", ("parent",), ("a",)),
    ],
)
def test_an_offline_that_cannot_be_is_forged_and_changes_nothing(link, path, gone):
    topology = middle()
    topology.online("a link", ("deep", "a"))
    topology.online("a link", ("deeper", "deep", "a"))
    before = topology.netmap.as_dict()
    with pytest.raises(Forged):
        topology.offline(link, path, gone)
    assert topology.netmap.as_dict() == before


@pytest.mark.parametrize("path", [("a",), ("deep", "a")])
def test_who_is_online_cannot_be_announced_again_before_it_has_gone(path):
    topology = middle()
    topology.online("a link", ("deep", "a"))
    with pytest.raises(Forged, match="already"):
        topology.online("a link", path)
    assert topology.neighbours["a link"].below == 1


def test_who_is_back_after_its_end_or_over_another_link_is_online_anew():
    topology = middle()
    topology.online("a link", ("deep", "a"))
    topology.offline("a link", ("a",), ("deep",))
    assert topology.online("a link", ("deep", "a")) == ("deep", "a", "me")
    topology.remove_child("a link")
    topology.add_child("a link", "a")
    assert topology.online("a link", ("a",)) == ("a", "me")
    assert topology.online("a link", ("deep", "a")) == ("deep", "a", "me")


def test_of_two_that_have_the_same_pid_the_one_that_is_meant_is_gone():
    topology = middle()
    for path in [("x", "a"), ("deep", "a"), ("x", "deep", "a")]:
        topology.online("a link", path)
    assert topology.offline("a link", ("a",), ("x", "deep")) == ("a", "me")
    assert topology.netmap.as_dict()["a"] == {"x": {}, "deep": {}}


# Quiet processes


def test_a_quiet_child_is_known_and_not_counted():
    topology = middle()
    topology.add_child("quiet link", "quiet", is_quiet=True)
    assert "quiet" not in topology.child_pids()
    assert topology.quiet_at("quiet link") == set()  # it is not online
    assert topology.online("quiet link", ("quiet",)) == ("quiet", "me")
    assert "quiet" not in topology.child_pids()
    assert topology.child_link("quiet") == "quiet link"
    assert topology.accept("quiet link", ("quiet",)) == ("quiet", "me")
    assert ("quiet",) in topology.announced()
    assert topology.quiet_at("quiet link") == {("quiet",)}
    assert topology.remove_child("quiet link")[0] == [("quiet",)]


def test_what_is_below_a_quiet_process_is_not_quiet():
    topology = middle()
    topology.add_child("quiet link", "quiet", is_quiet=True)
    topology.online("quiet link", ("quiet",))
    topology.online("quiet link", ("deep", "quiet"))
    topology.quiet("a link", ("hush", "a"))
    topology.online("a link", ("hush", "a"))
    topology.online("a link", ("deep", "hush", "a"))
    assert topology.quiet_at("quiet link") == {("quiet",)}
    assert topology.quiet_at("a link") == {("hush", "a")}
    assert topology.quiet_at("b link") == set()


def test_only_the_one_of_which_it_was_said_is_quiet_and_only_once():
    topology = middle()
    topology.quiet("a link", ("deep", "a"))
    topology.online("b link", ("deep", "b"))
    topology.online("a link", ("deep", "a"))
    topology.online("a link", ("other", "a"))
    assert topology.quiet_at("a link") == {("deep", "a")}
    assert topology.quiet_at("b link") == set()
    topology.offline("a link", ("a",), ("deep",))
    topology.online("a link", ("deep", "a"))  # another process, perhaps, of the same pid
    assert topology.quiet_at("a link") == set()


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("a link", ("a",)),  # of itself
        ("a link", ("b",)),
        ("a link", ("deep",)),
        ("a link", ("new", "b")),
        ("a link", ("new", "unknown", "a")),
        ("a link", ("deep", "a")),  # it is online
        ("a link", ()),
        ("a link", None),
        ("a link", ["new", "a"]),
        ("a link", (1, "a")),
        ("a link", ("new", *["deep"] * MAX_PATH, "a")),
        ("new link", ("new",)),
        ("parent link", ("parent",)),
        ("parent link", ("far", "parent")),
    ],
)
def test_a_quiet_process_that_cannot_be_is_forged_and_changes_nothing(link, path):
    topology = middle()
    topology.add_child("new link", "new")
    topology.online("a link", ("deep", "a"))
    with pytest.raises(Forged):
        topology.quiet(link, path)
    assert topology.neighbours[link].next_quiet is None


def test_after_a_quiet_one_nothing_but_its_online_is_true():
    topology = middle()
    topology.quiet("a link", ("deep", "a"))
    before = topology.netmap.as_dict()
    for path in [("deep", "a"), ("other", "a")]:
        with pytest.raises(Forged, match="before that is not online"):
            topology.quiet("a link", path)
    with pytest.raises(Forged, match="not the quiet one"):
        topology.online("a link", ("other", "a"))
    assert topology.netmap.as_dict() == before
    topology.online("a link", ("deep", "a"))
    assert topology.quiet_at("a link") == {("deep", "a")}


def test_only_so_many_processes_are_below_a_link_and_room_is_given_back(monkeypatch):
    monkeypatch.setattr("ipevents._core.topology.MAX_BELOW", 3)
    topology = middle()
    for pid in "xyz":
        topology.online("a link", (pid, "a"))
    with pytest.raises(Forged, match="more than 3 processes"):
        topology.online("a link", ("deep", "x", "a"))
    assert topology.netmap.as_dict()["a"] == {"x": {}, "y": {}, "z": {}}
    topology.online("b link", ("x", "b"))
    topology.offline("a link", ("a",), ("y",))
    topology.online("a link", ("deep", "x", "a"))
    with pytest.raises(Forged):
        topology.online("a link", ("y", "a"))


def test_a_parent_has_only_so_many_names(monkeypatch):
    monkeypatch.setattr("ipevents._core.topology._MAX_PARENT_NAMES", 3)
    topology = middle()
    for name in ("one", "two", "one", "parent"):
        assert topology.parent_renamed(name) == name
    with pytest.raises(ProtocolError, match="more than 3 names"):
        topology.parent_renamed("three")
    assert topology.parent_pid() == "parent"


# Interest


@pytest.mark.parametrize("events", ["xyz", ["x"], None, (1,), ("",), (["x"],)])
def test_interest_in_what_is_no_event_is_refused_and_changes_nothing(events):
    topology = middle()
    with pytest.raises(ProtocolError):
        topology.peer_interests("a link", events)
    assert topology.interest.of("a link") == {"x"}


@pytest.mark.parametrize("event", [None, 1, "", ["x"]])
def test_a_change_of_interest_in_what_is_no_event_is_refused(event):
    with pytest.raises(ProtocolError):
        middle().peer_interest("a link", event, True)


def test_the_parent_has_no_interest():
    topology = middle()
    with pytest.raises(Forged):
        topology.peer_interest("parent link", "x", True)
    with pytest.raises(Forged):
        topology.peer_interests("parent link", ("x",))


def test_own_interest_and_that_from_below_are_one_sum():
    topology = middle()
    assert topology.own_interest("x", True) == Change()
    assert topology.own_interests(["x", "own"]) == Change(advertise=("own",))
    assert topology.own_interest("own", False) == Change(withdraw=("own",))
    assert topology.interest.all() == ("x", "y")


def names(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"event {number}" for number in range(first, last))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr("ipevents._core.topology.MAX_INTEREST", 5)


@pytest.mark.parametrize("how", ["one by one", "whole", "in parts"])
def test_a_child_with_too_many_names_wants_everything(few, how):
    topology = middle()
    topology.peer_interests("a link", names(0, 5))
    assert not topology.wants("a link", "any")
    if how == "one by one":
        topology.peer_interest("a link", "event 4", True)  # which it has
        assert not topology.wants("a link", "any")
        change = topology.peer_interest("a link", "event 5", True)
    elif how == "whole":
        change = topology.peer_interests("a link", names(0, 6))
    else:
        change = topology.more_peer_interests("a link", names(4, 6))
    assert change == Change(everything=True)
    assert topology.wants("a link", "any")
    assert not topology.wants("b link", "any")
    assert topology.interest.of("a link") == frozenset()
    assert topology.peer_interest("a link", "event 1", False) == Change()
    assert topology.wants("a link", "event 1")


def test_what_a_child_wanted_is_given_back_when_it_goes_or_says_it_anew(few):
    topology = middle()
    topology.peer_wants_everything("a link")
    assert topology.peer_interests("a link", ("x",)) == Change(everything=False)
    assert not topology.wants("a link", "any")
    topology.peer_interests("a link", names(0, 100))
    assert topology.remove_child("a link")[1] == Change(everything=False)
    assert topology.interest.all() == ("x", "y")


def test_this_process_may_listen_to_any_number_of_events(few):
    topology = middle()
    assert topology.own_interests(names(0, 100)) == Change(advertise=tuple(sorted(names(0, 100))))


def test_the_parent_does_not_want_everything():
    with pytest.raises(Forged):
        middle().peer_wants_everything("parent link")


# Names


def test_a_name_of_ours_or_of_a_neighbour_is_taken():
    topology = middle()
    topology.rename("new name")
    topology.parent_renamed("new parent")
    taken = ("me", "new name", "parent", "new parent", "a")
    assert [topology.is_taken(name) for name in (*taken, "nobody")] == [True] * 5 + [False]


def test_the_parent_has_a_name_only_while_it_is_there():
    topology = middle()
    assert topology.parent_pid() == "parent"
    topology.set_up(Up.AWAY)
    assert topology.parent_pid() is None
    assert Topology("me").parent_pid() is None


# Answerers


def test_those_that_answer_are_counted_below_without_this_process():
    topology = middle()
    assert topology.own_answers("x", 4) == Change(answers=(("x", 1, 4),))
    assert topology.peer_answers("a link", "x", 2, 5) == Change(answers=(("x", 3, 9),))
    assert topology.answerers_below("x") == 2
    assert topology.own_answers("x", 4) == Change()
    assert topology.own_answers("x", 3) == Change(answers=(("x", 3, 8),))
    assert topology.own_answered([("y", 2)]) == Change(answers=(("x", 2, 5), ("y", 1, 2)))
    assert (topology.answerers_below("x"), topology.answerers_below("y")) == (2, 0)


def test_with_a_child_go_all_that_answered_there():
    topology = middle()
    topology.peer_answers("a link", "x", 2, 2)
    topology.peer_answers("b link", "x", 1, 4)
    _, change = topology.remove_child("a link")
    assert change.answers == (("x", 1, 4),)
    assert topology.answerers_below("x") == 1


def test_a_parent_has_no_say_in_how_many_answer_below():
    with pytest.raises(Forged):
        middle().peer_answers("parent link", "x", 1, 1)


def test_a_child_that_is_not_online_yet_gets_each_request_to_all():
    topology = middle()
    topology.add_child("new link", "new")
    assert topology.answers("new link", "x")
    topology.online("new link", ("new",))
    assert not topology.answers("new link", "x")
    topology.peer_answers("new link", "x", 1, 1)
    assert topology.answers("new link", "x")


def test_a_request_to_any_may_go_to_all_below_that_answer_and_are_not_away():
    topology = middle()
    topology.own_answers("x", 1)
    assert topology.answering_links("x") == {}
    topology.peer_answers("a link", "x", 1, 4)
    topology.peer_answers("b link", "x", 2, 2)
    topology.peer_answers("b link", "y", 1, 1)
    assert topology.answering_links("x") == {"a link": 4, "b link": 2}
    version = topology.version
    topology.set_away("b link", True)
    assert topology.version > version
    assert topology.answering_links("x") == {"a link": 4}
    version = topology.version
    topology.set_away("b link", False)
    assert topology.version > version
    assert topology.answering_links("x") == {"a link": 4, "b link": 2}
    topology.remove_child("a link")
    assert topology.answering_links("x") == {"b link": 2}
