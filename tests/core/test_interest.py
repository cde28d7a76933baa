from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.interest import Change, Interest

NOTHING = Change()


def test_the_first_who_wants_is_advertised_and_the_second_is_not():
    interest = Interest()
    assert interest.add("link 1", "x") == Change(advertise=("x",))
    assert interest.add("link 2", "x") == NOTHING


def test_the_last_who_wants_is_withdrawn_and_the_first_is_not():
    interest = Interest()
    interest.add("link 1", "x")
    interest.add("link 2", "x")
    assert interest.remove("link 1", "x") == NOTHING
    assert interest.remove("link 2", "x") == Change(withdraw=("x",))


def test_a_source_counts_once():
    interest = Interest()
    interest.add("link", "x")
    assert interest.add("link", "x") == NOTHING
    assert interest.remove("link", "x") == Change(withdraw=("x",))


def test_removing_what_is_not_there_changes_nothing():
    interest = Interest()
    interest.add("link", "x")
    assert interest.remove("link", "y") == NOTHING
    assert interest.remove("other", "x") == NOTHING
    assert interest.all() == ("x",)


def test_replacing_tells_the_difference():
    interest = Interest()
    interest.replace("link 1", ["a", "b"])
    interest.replace("link 2", ["b", "c"])
    assert interest.replace("link 1", ["c", "d"]) == Change(advertise=("d",), withdraw=("a",))
    assert interest.all() == ("b", "c", "d")


def test_a_forgotten_source_wants_nothing():
    interest = Interest()
    interest.replace("link 1", ["a", "b"])
    interest.replace("link 2", ["b"])
    assert interest.forget("link 1") == Change(withdraw=("a",))
    assert interest.of("link 1") == frozenset()
    assert not interest.wants("link 1", "b")
    assert interest.forget("link 1") == NOTHING


SOURCES = st.sampled_from(["here", "link 1", "link 2"])
EVENTS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.tuples(st.just("add"), SOURCES, EVENTS),
    st.tuples(st.just("remove"), SOURCES, EVENTS),
    st.tuples(st.just("replace"), SOURCES, st.sets(EVENTS)),
    st.tuples(st.just("add_all"), SOURCES, st.lists(EVENTS)),
    st.tuples(st.just("forget"), SOURCES),
)


@given(st.lists(CHANGES, max_size=30))
def test_what_was_told_upwards_is_the_sum_of_all_sources(changes):
    interest = Interest()
    told: set[str] = set()
    model: dict[str, set[str]] = {"here": set(), "link 1": set(), "link 2": set()}
    for name, source, *values in changes:
        change = getattr(interest, name)(source, *values)
        assert not told & set(change.advertise)
        assert set(change.withdraw) <= told
        told |= set(change.advertise)
        told -= set(change.withdraw)
        if name == "add":
            model[source].add(values[0])
        elif name == "remove":
            model[source].discard(values[0])
        elif name == "add_all":
            model[source].update(values[0])
        else:
            model[source] = set(values[0]) if values else set()

        assert told == set().union(*model.values()) == set(interest.all())
        assert {key: set(interest.of(key)) for key in model} == model
        assert all(interest.wants(key, event) for key, events in model.items() for event in events)
