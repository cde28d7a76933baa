"""What control records do."""

from __future__ import annotations

from ipevents._core.messages import (
    TO_PARENTS,
)


def test_an_unknown_control_record_goes_to_who_knows_processes(places, raw):
    top = places("top").listen("x")
    raw(top).send((99, "news"), (TO_PARENTS, ("raw",), "x", None, [()]))
    top.next()
    assert top.controls == [(99, "news")]
