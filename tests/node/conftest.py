from __future__ import annotations

import pytest
from places import FULL, jam, join, settle

from ipevents._core import outbox


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(outbox, "OUTBOX_RECORDS", FULL)
    monkeypatch.setattr(outbox, "FRAME_BYTES", 1)


@pytest.fixture
def pair(places, small):
    """A parent with two children; the link to the first is jammed and full of events "old"."""
    parent, first, second = places("parent"), places("first"), places("second")
    join(parent, first)
    join(parent, second)
    for place in (first, second):
        place.listen("x", "old")
    settle(parent, first)
    settle(parent, second)
    link = parent.link_to(first)
    jam(parent, link)
    for number in range(FULL):
        parent.send_child("first", "old", number)
    assert len(link.outbox) == FULL
    return parent, first, second, link
