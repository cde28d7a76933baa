from __future__ import annotations

from ipevents._core.actions import NOTHING, Plan, Report


def test_the_empty_plan_does_nothing():
    assert Plan() == NOTHING == (False, (), None, False, None, "")


def test_a_report_is_about_a_connected_way_unless_said_otherwise():
    assert Report("gone") == Report("gone", None, True)
