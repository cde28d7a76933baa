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


def test_who_wants_everything_wants_each_event_and_has_no_names_any_more():
    interest = Interest()
    interest.replace("link", ["a", "b"])
    assert interest.want_everything("link") == Change(everything=True)
    assert (interest.is_everything, interest.wants("link", "any")) == (True, True)
    assert (interest.of("link"), interest.count("link"), interest.all()) == (frozenset(), 0, ())
    assert interest.want_everything("link") == NOTHING


def test_while_one_wants_everything_no_single_event_is_announced_and_all_are_counted():
    interest = Interest()
    interest.want_everything("link")
    assert interest.add("here", "a") == interest.add("here", "b") == NOTHING
    assert interest.add("link", "c") == interest.remove("link", "c") == NOTHING
    assert interest.remove("here", "b") == NOTHING
    assert interest.all() == ("a",)


def test_when_the_last_one_wants_everything_no_more_all_is_announced_anew():
    interest = Interest()
    interest.add("here", "a")
    interest.want_everything("link 1")
    interest.want_everything("link 2")
    assert interest.forget("link 1") == NOTHING
    assert interest.replace("link 2", ["b"]) == Change(everything=False)
    assert interest.all() == ("a", "b")
    assert interest.add("link 1", "c") == Change(advertise=("c",))


SOURCES = st.sampled_from(["here", "link 1", "link 2"])
EVENTS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.tuples(st.just("add"), SOURCES, EVENTS),
    st.tuples(st.just("remove"), SOURCES, EVENTS),
    st.tuples(st.just("replace"), SOURCES, st.sets(EVENTS)),
    st.tuples(st.just("add_all"), SOURCES, st.lists(EVENTS)),
    st.tuples(st.just("forget"), SOURCES),
    st.tuples(st.just("want_everything"), SOURCES),
)


@given(st.lists(CHANGES, max_size=30))
def test_what_was_told_upwards_is_the_sum_of_all_sources(changes):
    interest = Interest()
    told: set[str] = set()
    told_all = False
    model: dict[str, set[str]] = {"here": set(), "link 1": set(), "link 2": set()}
    greedy: set[str] = set()
    for name, source, *values in changes:
        change = getattr(interest, name)(source, *values)
        assert not told & set(change.advertise)
        assert set(change.withdraw) <= told
        assert change.everything is None or change[:2] == ((), ())
        if change.everything is not None:
            assert change.everything is not told_all
            told_all = change.everything
            told = set() if told_all else set(interest.all())
        told |= set(change.advertise)
        told -= set(change.withdraw)
        if name in ("replace", "forget"):
            greedy.discard(source)
            model[source] = set(values[0]) if values else set()
        elif name == "want_everything":
            greedy.add(source)
            model[source] = set()
        elif source not in greedy:
            if name == "add":
                model[source].add(values[0])
            elif name == "remove":
                model[source].discard(values[0])
            else:
                model[source].update(values[0])

        assert told_all == interest.is_everything == bool(greedy)
        assert set(interest.all()) == set().union(*model.values())
        assert told_all or told == set(interest.all())
        assert {key: set(interest.of(key)) for key in model} == model
        for key, events in model.items():
            assert [interest.wants(key, event) for event in "abc"] == [
                key in greedy or event in events for event in "abc"
            ]
