"""How many processes answer an event, and their capacity: sums over sources, and what a parent is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.answerers import Answerers

SOURCES = ("here", "a link", "b link")
EVENTS = ("x", "y", "z")

STEPS = st.one_of(
    st.tuples(
        st.just("set"),
        st.sampled_from(SOURCES),
        st.sampled_from(EVENTS),
        st.integers(0, 3),
        st.integers(0, 9),
    ),
    st.tuples(
        st.just("replace"),
        st.sampled_from(SOURCES),
        st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 9))),
    ),
    st.tuples(st.just("forget"), st.sampled_from(SOURCES)),
)


def test_the_sum_is_that_of_all_sources_and_an_event_that_nobody_answers_has_none():
    answerers = Answerers()
    assert answerers.set("here", "x", 1, 1) == (("x", 1, 1),)
    assert answerers.set("a link", "x", 2, 5) == (("x", 3, 6),)
    assert answerers.set("a link", "y", 1, 4) == (("y", 1, 4),)
    assert (answerers.sum("x"), answerers.sum("y"), answerers.sum("z")) == (3, 1, 0)
    assert (answerers.of("a link", "x"), answerers.of("here", "y"), answerers.of("b link", "x")) == (2, 0, 0)
    assert answerers.sums() == (("x", 3, 6), ("y", 1, 4))
    assert answerers.set("a link", "y", 0, 0) == (("y", 0, 0),)
    assert answerers.sums() == (("x", 3, 6),)


def test_what_does_not_change_is_not_announced():
    answerers = Answerers()
    assert answerers.set("a link", "x", 0, 0) == ()
    answerers.set("a link", "x", 2, 4)
    assert answerers.set("a link", "x", 2, 4) == ()
    assert answerers.replace("here", [("y", 3)]) == (("y", 1, 3),)
    assert answerers.replace("here", [("y", 1), ("y", 3)]) == ()


def test_another_number_at_one_source_and_the_contrary_at_another_are_two_changes():
    answerers = Answerers()
    answerers.set("a link", "x", 1, 1)
    assert answerers.set("b link", "x", 1, 1) == (("x", 2, 2),)
    assert answerers.set("a link", "x", 0, 0) == (("x", 1, 1),)


def test_all_of_a_process_takes_the_place_of_what_was_there():
    answerers = Answerers()
    answerers.set("here", "x", 1, 2)
    answerers.set("a link", "x", 1, 3)
    changed = answerers.replace("here", [("y", 1), ("z", 4)])
    assert sorted(changed) == [("x", 1, 3), ("y", 1, 1), ("z", 1, 4)]
    assert (answerers.of("here", "x"), answerers.size("here"), answerers.size("a link")) == (0, 2, 1)


def test_a_source_that_is_forgotten_counts_no_more():
    answerers = Answerers()
    answerers.set("a link", "x", 2, 2)
    answerers.set("a link", "y", 1, 1)
    answerers.set("here", "x", 1, 8)
    assert sorted(answerers.forget("a link")) == [("x", 1, 8), ("y", 0, 0)]
    assert answerers.forget("a link") == ()
    assert answerers.size("a link") == 0
    assert answerers.sums() == (("x", 1, 8),)


def test_another_capacity_is_a_change_though_as_many_answer():
    answerers = Answerers()
    answerers.set("a link", "x", 2, 2)
    assert answerers.set("a link", "x", 2, 9) == (("x", 2, 9),)
    assert answerers.set("a link", "x", 2, 3) == (("x", 2, 3),)
    assert (answerers.of("a link", "x"), answerers.capacity("a link", "x")) == (2, 3)


def test_nobody_has_less_capacity_than_one_for_each_process():
    answerers = Answerers()
    assert answerers.set("a link", "x", 3, 1) == (("x", 3, 3),)
    assert answerers.replace("here", [("x", 0)]) == (("x", 4, 4),)
    assert answerers.set("a link", "x", 0, 7) == (("x", 1, 1),)
    assert answerers.capacity("a link", "x") == answerers.capacity("nobody", "x") == 0


def test_the_sources_of_an_event_are_those_that_answer_it_with_their_capacity():
    answerers = Answerers()
    answerers.set("a link", "x", 1, 2)
    answerers.set("b link", "x", 3, 3)
    answerers.set("b link", "y", 1, 1)
    answerers.set("here", "x", 1, 1)
    answerers.set("here", "x", 0, 0)
    assert dict(answerers.sources("x")) == {"a link": 2, "b link": 3}
    assert dict(answerers.sources("y")) == {"b link": 1}
    assert dict(answerers.sources("z")) == {}


@given(st.lists(STEPS))
def test_the_sums_are_right_after_any_steps_and_the_parent_knows_them_from_what_is_announced(steps):
    answerers = Answerers()
    model: dict[str, dict[str, tuple[int, int]]] = {source: {} for source in SOURCES}
    known: dict[str, tuple[int, int]] = {}  # to the parent
    for step in steps:
        if step[0] == "set":
            _, source, event, count, capacity = step
            model[source][event] = (count, max(count, capacity)) if count else (0, 0)
            news = answerers.set(source, event, count, capacity)
        elif step[0] == "replace":
            _, source, events = step
            model[source] = {event: (1, max(1, capacity)) for event, capacity in events}
            news = answerers.replace(source, events)
        else:
            model[step[1]] = {}
            news = answerers.forget(step[1])
        before = dict(known)
        for event, *total in news:
            assert known.get(event, (0, 0)) != tuple(total)  # nothing is told twice
            known[event] = tuple(total)
        assert len({event for event, *_ in news}) == len(news)
        expected = {
            event: tuple(sum(each.get(event, (0, 0))[at] for each in model.values()) for at in (0, 1))
            for event in EVENTS
        }
        assert {event: answerers.sum(event) for event in EVENTS} == {
            event: count for event, (count, _) in expected.items()
        }
        assert {event: known.get(event, (0, 0)) for event in EVENTS} == expected, before
        assert answerers.sums() == tuple((event, *n) for event, n in sorted(expected.items()) if n[0])
        for source in SOURCES:
            of_source = model[source]
            assert answerers.size(source) == sum(1 for n, _ in of_source.values() if n)
            for event in EVENTS:
                found = (answerers.of(source, event), answerers.capacity(source, event))
                assert found == of_source.get(event, (0, 0))
                assert dict(answerers.sources(event)).get(source, 0) == found[1]
