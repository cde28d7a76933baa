"""The store of what waits for our ``online``. Its part in a node: test_incoming.py."""

from __future__ import annotations

import pytest

from ipevents._core.decisions import Decision
from ipevents._node import held as module
from ipevents._node.held import Held

ONE, OTHER = Decision(("1",)), Decision(("2",))


class Connected:
    """As much of a link as the store needs."""

    def __init__(self):
        self.let_go = 0


@pytest.fixture
def link():
    return Connected()


def test_what_is_held_comes_back_in_order_with_the_decision_for_its_event(link):
    held = Held()
    held.add(link, {"a": ONE, "b": OTHER}, ["a", "b"], [(1,), (2,)])
    held.add(link, {"a": ONE}, ["a"], [(3,)])
    assert held.count == 3
    assert held.take() == [(link, ONE, (1,)), (link, OTHER, (2,)), (link, ONE, (3,))]
    assert (held.count, held.take()) == (0, [])


@pytest.mark.parametrize("limit", ["_MAX_MESSAGES", "_MAX_BYTES"])
def test_it_is_full_at_each_of_its_limits_and_empty_after_it_was_taken(link, limit, monkeypatch):
    monkeypatch.setattr(module, limit, 2)
    held = Held()
    assert not held.is_full()
    held.add(link, {"a": ONE}, ["a", "a"], [b"1", b"2"])
    assert held.is_full()
    held.take()
    assert not held.is_full()


def test_what_is_dropped_is_counted_once(link):
    held = Held()
    held.add(link, {"a": ONE}, ["a", "a"], [(1,), (2,)])
    held.drop()
    held.drop()
    assert link.let_go == 2
    assert (held.count, held.is_dropped) == (0, True)


def test_what_is_held_is_counted_for_the_link_that_it_came_by(link):
    held, other = Held(), Connected()
    assert held.count_of(link) == 0
    held.add(link, {"a": ONE}, ["a", "a"], [(1,), (2,)])
    held.add(other, {"a": ONE}, ["a"], [(3,)])
    assert (held.count_of(link), held.count_of(other)) == (2, 1)
    held.take()
    assert held.count_of(link) == 0
