from __future__ import annotations

import pytest

from ipevents._core import shares
from ipevents._core.shares import Shares, size_of


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(shares, "SHARE_BYTES", 10)
    monkeypatch.setattr(shares, "ALL_BYTES", 25)


def test_a_neighbour_has_used_up_its_share_and_another_one_has_not():
    found = Shares()
    assert not found.is_used_up("a", 0)
    found.add("a", 1, 9)
    assert not found.is_used_up("a", 0)
    found.add("a", 2, 1)
    assert found.is_used_up("a", 0)
    assert not found.is_used_up("b", 0)


def test_what_has_left_the_outbox_counts_no_more():
    found = Shares()
    for number in (3, 5):
        found.add("a", number, 10)
    assert found.is_used_up("a", 2)
    assert found.is_used_up("a", 4)
    assert not found.is_used_up("a", 5)


def test_all_together_have_a_bound_as_well():
    found = Shares()
    for number, source in enumerate("abc", 1):
        assert not found.is_used_up("d", 0)
        found.add(source, number, 9)
    assert found.is_used_up("d", 0)
    assert not found.is_used_up("d", 1)


def test_a_record_is_as_large_as_its_paths():
    assert 0 < size_of(()) < size_of(("a",)) < size_of(("a" * 100,)) < size_of(("a" * 100, "b"), ("c",))
