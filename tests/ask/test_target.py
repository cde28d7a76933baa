"""Who is asked, for the texts of errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ipevents._ask.target import Target
from ipevents._core.messages import REQUEST, REQUEST_ALL


@pytest.mark.parametrize(
    ("target", "pid"),
    [
        (Target(route=("a", "b")), "a"),
        (Target(route=()), ""),
        (Target(REQUEST_ALL), ""),
        (Target(child=SimpleNamespace(pid="4711")), "4711"),
    ],
)
def test_a_target_knows_whom_it_means(target, pid):
    assert target.pid() == pid


def test_a_child_is_known_by_the_process_that_it_has_just_then():
    child = SimpleNamespace(pid="4711")
    target = Target(child=child)
    child.pid = "4712"
    assert target.pid() == "4712"
    assert target.kind == REQUEST
