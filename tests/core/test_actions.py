from __future__ import annotations

from ipevents._core.actions import NOTHING, Plan, Report


def test_the_empty_plan_does_nothing():
    assert Plan() == NOTHING
    assert not any((NOTHING.deliver, NOTHING.forward, NOTHING.report, NOTHING.lost_up, NOTHING.only))


def test_plans_are_equal_if_all_their_parts_are():
    plan = Plan(True, ("a link",), None, False, (1, ("me",), None), "x", "a link")
    same = Plan(True, ("a link",), None, False, (1, ("me",), None), "x", "a link")
    assert (plan, hash(plan), repr(plan)) == (same, hash(same), repr(same))
    assert plan != Plan(True, ("a link",), None, False, (1, ("me",), None), "y", "a link") != NOTHING
    assert plan != "a plan"


def test_a_report_is_about_a_connected_way_unless_said_otherwise():
    assert Report("gone") == Report("gone", None, True)
