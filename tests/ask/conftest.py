from __future__ import annotations

import pytest
from asked import settled
from places import FULL, Raw, jam, join, settle

from ipevents._core.messages import ANSWERS, ONLINE


@pytest.fixture
def pair(places):
    """A parent and its child."""
    parent, child = places("parent"), places("child")
    parent.node.announced = True
    join(parent, child)
    return parent, child


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


@pytest.fixture
def between(places, raw):
    """A place with a parent, "top", and two children that are only sockets; the second answers "x"."""
    place = places("me")
    top = Raw(place, "top", above=True)
    one, other = raw(place, "one"), raw(place, "other")
    for child in (one, other):
        child.send((ONLINE, (child.pid,)))
    other.send((ANSWERS, "x", 1, 1))
    settled(place, one)
    settled(place, other)
    yield place, top, one, other
    top.socket.close()
    top._ours.close()


@pytest.fixture
def asker(places, raw):
    """A place, and its child that is only a socket."""
    place = places("top")
    return place, raw(place)
