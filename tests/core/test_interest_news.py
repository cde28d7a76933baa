from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipevents._core.interest_news import InterestNews, size_of
from ipevents._core.messages import ANSWERS, EVERYTHING, INTEREST, INTERESTS, MORE_INTERESTS, control


def test_what_has_changed_is_told_and_several_new_events_in_one_record():
    news = InterestNews()
    news.change("x", True)
    assert news.records() == [(INTEREST, "x", True)]
    news.change("y", True)
    news.change("z", False)
    assert news.records() == [(INTEREST, "z", False), (MORE_INTERESTS, ("x", "y"))]


def test_a_change_and_its_contrary_are_no_news():
    news = InterestNews()
    for wanted in (True, False):
        news.change("x", wanted)
        news.change("x", not wanted)
        assert news.is_empty
        assert news.records() == []


def test_what_is_told_anew_is_what_holds_when_it_is_told():
    news, names = InterestNews(), ["x"]
    news.change("x", True)
    news.anew(
        lambda: [
            control(INTERESTS, events=tuple(names)),
            control(ANSWERS, event=names[0], answerers=2, capacity=2),
        ]
    )
    names.append("y")
    news.change("y", True)
    news.answers("y", 1, 1)
    assert not news.is_empty
    assert news.records() == [(INTERESTS, ("x", "y")), (ANSWERS, "x", 2, 2)]


def test_only_the_last_number_of_those_that_answer_is_told():
    news = InterestNews()
    news.answers("x", 1, 1)
    assert not news.is_empty
    assert news.records() == [(ANSWERS, "x", 1, 1)]
    news.answers("x", 2, 5)
    news.answers("y", 1, 1)
    news.answers("x", 0, 0)
    assert news.records() == [(ANSWERS, "x", 0, 0), (ANSWERS, "y", 1, 1)]


def test_numbers_of_those_that_answer_are_told_after_the_interest():
    news = InterestNews()
    news.answers("x", 1, 1)
    news.change("x", True)
    news.change("y", False)
    assert news.records() == [(INTEREST, "y", False), (INTEREST, "x", True), (ANSWERS, "x", 1, 1)]


def test_what_is_told_anew_holds_the_numbers_as_well():
    news = InterestNews()
    news.answers("x", 1, 1)
    news.anew(lambda: [control(EVERYTHING)])
    assert news.records() == [(EVERYTHING,)]


def told(known: set[str], record: tuple) -> set[str]:
    """What the parent knows after this record."""
    if record[0] == INTEREST:
        return known | {record[1]} if record[2] else known - {record[1]}
    return {*record[1]} if record[0] == INTERESTS else known | {*record[1]}


@given(st.lists(st.sampled_from(["x", "y", "z", "anew", "told"])))
def test_the_parent_knows_what_holds_whenever_it_is_told(steps):
    """An event is the step of one whose listener comes if it is not there, and goes if it is."""
    holds: set[str] = set()
    knows: set[str] = set()
    news = InterestNews()
    for step in [*steps, "told"]:
        if step == "told":
            for record in news.records():
                knows = told(knows, record)
            assert knows == holds
            news = InterestNews()
        elif step == "anew":
            news.anew(lambda now=holds: [control(INTERESTS, events=tuple(now))])
        else:
            holds.symmetric_difference_update({step})
            news.change(step, step in holds)
        assert news.is_empty or news.records()


def test_each_record_has_a_size():
    records = [
        (INTEREST, "long name", True),
        (INTERESTS, ("a", "b" * 100)),
        (INTERESTS, ()),
        (EVERYTHING,),
        (ANSWERS, "long name", 7, 7),
    ]
    sizes = [size_of([record]) for record in records]
    assert min(sizes) > 0
    assert sizes[0] == sizes[4] < sizes[1]
    assert size_of(records) == sum(sizes)
