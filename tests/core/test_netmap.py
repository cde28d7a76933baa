from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.netmap import Netmap


def tree(*paths: str) -> Netmap:
    """A netmap where the paths, each a word of one-letter pids with the neighbour last, are online."""
    netmap = Netmap()
    for path in paths:
        netmap.online(tuple(path))
    return netmap


def test_what_is_online_is_known():
    netmap = tree("a", "ba")
    assert netmap.as_dict() == {"a": {"b": {}}}
    assert ("b", "a") in netmap.announced()
    assert not netmap.knows(("b",))


def test_what_was_started_is_known_but_not_online():
    netmap = Netmap()
    netmap.add(("a",))
    assert netmap.knows(("a",))
    assert netmap.announced() == []


def test_it_is_known_who_is_online_and_who_has_others_below():
    netmap = tree("a", "ba")
    netmap.add(("c",))
    paths = [("a",), ("b", "a"), ("c",), ("x",)]
    assert [netmap.is_online(path) for path in paths] == [True, True, False, False]
    assert [netmap.has_below(path) for path in paths] == [True, False, False, False]


def test_the_same_pid_may_be_in_two_branches():
    netmap = tree("a", "b", "xa", "xb")
    netmap.remove(("x", "a"))
    assert netmap.as_dict() == {"a": {}, "b": {"x": {}}}


def test_all_that_are_online_are_announced_top_down():
    netmap = tree("a", "ba", "cba", "d")
    announced = netmap.announced()
    assert sorted(announced) == [("a",), ("b", "a"), ("c", "b", "a"), ("d",)]
    assert announced.index(("a",)) < announced.index(("b", "a")) < announced.index(("c", "b", "a"))


def test_who_goes_takes_all_below_along_deepest_first():
    netmap = tree("a", "ba", "cba", "da")
    gone = netmap.remove(("a",))
    assert sorted(gone) == [("a",), ("b", "a"), ("c", "b", "a"), ("d", "a")]
    assert gone[0] == ("c", "b", "a")
    assert gone[-1] == ("a",)
    assert netmap.as_dict() == {}


def test_who_goes_before_it_was_online_is_not_told():
    netmap = Netmap()
    netmap.add(("a",))
    netmap.online(("b", "a"))
    assert netmap.remove(("a",)) == [("b", "a")]


def test_who_is_quiet_is_announced_and_goes_as_all_others():
    netmap = tree("a", "cba")
    netmap.online(("b", "a"), is_quiet=True)
    paths = [("a",), ("b", "a"), ("c", "b", "a"), ("x",), ()]
    assert [netmap.is_quiet(path) for path in paths] == [False, True, False, False, False]
    assert ("b", "a") in netmap.announced()
    assert netmap.as_dict() == {"a": {"b": {"c": {}}}}
    assert ("b", "a") in netmap.remove(("a",))
    assert not netmap.is_quiet(("b", "a"))


def test_who_is_back_is_as_quiet_as_it_says_now():
    netmap = tree("a")
    for is_quiet in (True, False):
        netmap.online(("b", "a"), is_quiet=is_quiet)
        assert netmap.is_quiet(("b", "a")) == is_quiet
        netmap.remove(("b", "a"))


def test_removing_what_is_not_known_changes_nothing():
    netmap = tree("a")
    assert netmap.remove(("b",)) == []
    assert netmap.remove(("b", "c")) == []
    assert netmap.as_dict() == {"a": {}}


@given(st.lists(st.tuples(st.booleans(), st.text("abc", min_size=1, max_size=4)), max_size=20))
def test_what_is_announced_is_what_came_and_did_not_go(steps):
    netmap = Netmap()
    model: set[tuple[str, ...]] = set()
    for comes, word in steps:
        path = tuple(word)
        if comes:
            netmap.online(path)
            model.add(path)
        else:
            below = {known for known in model if known[-len(path) :] == path}
            gone = netmap.remove(path)
            assert set(gone) == below
            assert [len(item) for item in gone] == sorted(map(len, gone), reverse=True)
            model -= below
        assert set(netmap.announced()) == model
