from __future__ import annotations

import json
import sys

import blinker

import ipevents
from ipevents._platform import host


def test_whether_a_frame_is_below_another_one():
    outer = sys._getframe()

    def inner() -> bool:
        return host.is_below(outer, sys._getframe())

    left = []
    (lambda: left.append(sys._getframe()))()
    assert inner()
    assert not host.is_below(left[0], sys._getframe())


def frame_in(space: dict[str, object], file: str = "<made>"):
    exec(compile("import sys\ndef look():\n    return sys._getframe()", file, "exec"), space)
    return space["look"]()


def test_a_frame_is_ours_or_the_standard_librarys_or_the_users():
    ours = [
        frame_in({"__name__": name}) for name in (ipevents.__name__, blinker.__name__, "ipevents._core.wire")
    ]
    users = frame_in({"__name__": "ipevents_of_somebody"})
    library = frame_in({"__name__": "json"}, json.__file__)
    assert [host.is_ours(frame) for frame in (*ours, users, library)] == [True, True, True, False, False]
    assert [host.is_library(frame) for frame in (users, library, sys._getframe())] == [False, True, False]


def test_without_a_known_body_nobody_has_left_it(monkeypatch):
    monkeypatch.setattr(host, "_body", None)
    assert not host.has_left_body(sys._getframe())


def test_the_body_is_left_when_it_is_no_more_on_the_stack(monkeypatch):
    gone = frame_in({"__name__": "__main__"})
    for body, left in ((sys._getframe(), False), (gone, True)):
        monkeypatch.setattr(host, "_body", body)
        assert host.has_left_body(sys._getframe()) == left
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert not host.has_left_body(sys._getframe())
