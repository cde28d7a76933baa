from __future__ import annotations

import pytest
from places import FULL, jam, join, settle


@pytest.fixture
def pair(places):
    """A parent and its child."""
    parent, child = places("parent"), places("child")
    parent.node.announced = True
    join(parent, child)
    return parent, child


@pytest.fixture
def line(places):
    """Three places: top, middle and leaf."""
    top, middle, leaf = places("top"), places("middle"), places("leaf")
    top.node.announced = True
    join(top, middle)
    join(middle, leaf)
    settle(top, middle, leaf)
    return top, middle, leaf


@pytest.fixture
def full(monkeypatch, places):
    """A parent, its child that answers "x" by the value, and the link to it, whose outbox takes no more."""
    monkeypatch.setattr("ipevents._core.outbox.OUTBOX_RECORDS", FULL)
    monkeypatch.setattr("ipevents._core.outbox.FRAME_BYTES", 1)
    parent, child = places("parent"), places("child")
    join(parent, child)
    child.answer("x", lambda message, value=None: value)
    settle(parent, child)
    link = parent.link_to(child)
    jam(parent, link)
    for number in range(FULL):
        parent.send_child("child", "old", number)
    return parent, child, link
