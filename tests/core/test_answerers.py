"""How many processes answer an event: sums over sources, and what of them a parent is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.answerers import Answerers

SOURCES = ("here", "a link", "b link")
EVENTS = ("x", "y", "z")

STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(SOURCES), st.sampled_from(EVENTS), st.integers(0, 3)),
    st.tuples(st.just("replace"), st.sampled_from(SOURCES), st.lists(st.sampled_from(EVENTS))),
    st.tuples(st.just("forget"), st.sampled_from(SOURCES)),
)


def test_the_sum_is_that_of_all_sources_and_an_event_that_nobody_answers_has_none():
    answerers = Answerers()
    assert answerers.set("here", "x", 1) == (("x", 1),)
    assert answerers.set("a link", "x", 2) == (("x", 3),)
    assert answerers.set("a link", "y", 1) == (("y", 1),)
    assert (answerers.sum("x"), answerers.sum("y"), answerers.sum("z")) == (3, 1, 0)
    assert (answerers.of("a link", "x"), answerers.of("here", "y"), answerers.of("b link", "x")) == (2, 0, 0)
    assert answerers.sums() == (("x", 3), ("y", 1))
    assert answerers.set("a link", "y", 0) == (("y", 0),)
    assert answerers.sums() == (("x", 3),)


def test_what_does_not_change_is_not_announced():
    answerers = Answerers()
    assert answerers.set("a link", "x", 0) == ()
    answerers.set("a link", "x", 2)
    assert answerers.set("a link", "x", 2) == ()
    assert answerers.replace("here", ["y"]) == (("y", 1),)
    assert answerers.replace("here", ["y", "y"]) == ()


def test_another_number_at_one_source_and_the_contrary_at_another_are_two_changes():
    answerers = Answerers()
    answerers.set("a link", "x", 1)
    assert answerers.set("b link", "x", 1) == (("x", 2),)
    assert answerers.set("a link", "x", 0) == (("x", 1),)


def test_all_of_a_process_takes_the_place_of_what_was_there():
    answerers = Answerers()
    answerers.set("here", "x", 1)
    answerers.set("a link", "x", 1)
    assert sorted(answerers.replace("here", ["y", "z"])) == [("x", 1), ("y", 1), ("z", 1)]
    assert (answerers.of("here", "x"), answerers.size("here"), answerers.size("a link")) == (0, 2, 1)


def test_a_source_that_is_forgotten_counts_no_more():
    answerers = Answerers()
    answerers.set("a link", "x", 2)
    answerers.set("a link", "y", 1)
    answerers.set("here", "x", 1)
    assert sorted(answerers.forget("a link")) == [("x", 1), ("y", 0)]
    assert answerers.forget("a link") == ()
    assert answerers.size("a link") == 0
    assert answerers.sums() == (("x", 1),)


@given(st.lists(STEPS))
def test_the_sums_are_right_after_any_steps_and_the_parent_knows_them_from_what_is_announced(steps):
    answerers = Answerers()
    model: dict[str, dict[str, int]] = {source: {} for source in SOURCES}
    known: dict[str, int] = {}  # to the parent
    for step in steps:
        if step[0] == "set":
            _, source, event, count = step
            model[source][event] = count
            news = answerers.set(source, event, count)
        elif step[0] == "replace":
            _, source, events = step
            model[source] = dict.fromkeys(events, 1)
            news = answerers.replace(source, events)
        else:
            model[step[1]] = {}
            news = answerers.forget(step[1])
        before = dict(known)
        for event, total in news:
            assert known.get(event, 0) != total  # nothing is told twice
            known[event] = total
        assert len({event for event, _ in news}) == len(news)
        expected = {event: sum(each.get(event, 0) for each in model.values()) for event in EVENTS}
        assert {event: answerers.sum(event) for event in EVENTS} == expected
        assert {event: known.get(event, 0) for event in EVENTS} == expected, before
        assert answerers.sums() == tuple(sorted((event, n) for event, n in expected.items() if n))
        for source in SOURCES:
            assert answerers.size(source) == sum(1 for n in model[source].values() if n)
            assert all(answerers.of(source, event) == model[source].get(event, 0) for event in EVENTS)
