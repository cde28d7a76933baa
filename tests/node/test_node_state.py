"""What all parts of a node share."""

from __future__ import annotations

from places import inside

from ipevents._exceptions import UnknownProcess


def test_a_mistake_made_inside_is_an_error_event(line):
    top = line[0].hear_errors()
    inside(top, lambda: top.send_child("nobody", "x"))
    assert isinstance(top.next_error(), UnknownProcess)
