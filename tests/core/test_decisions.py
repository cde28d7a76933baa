from __future__ import annotations

import pytest

from ipevents._core.decisions import NOTHING, Decision, Plan, Report


def test_the_empty_plan_does_nothing():
    assert Plan() == NOTHING
    assert not any((NOTHING.deliver, NOTHING.forward, NOTHING.report, NOTHING.lost_up, NOTHING.only))


def test_plans_are_equal_if_all_their_parts_are():
    plan = Plan(True, ("a link",), None, False, (1, ("me",), None), "x", "a link")
    same = Plan(True, ("a link",), None, False, (1, ("me",), None), "x", "a link")
    assert (plan, repr(plan)) == (same, repr(same))
    assert plan != Plan(True, ("a link",), None, False, (1, ("me",), None), "y", "a link") != NOTHING
    assert plan != "a plan"


def test_a_report_is_about_a_connected_way_unless_said_otherwise():
    assert Report("gone") == Report("gone", None, True)


GOES_ON = {
    "forward": {"forward": ("a link",)},
    "a report": {"report": Report("gone")},
    "lost": {"lost_up": True},
}


@pytest.mark.parametrize("parts", GOES_ON.values(), ids=GOES_ON)
def test_what_is_not_only_delivered_goes_on(parts):
    assert Decision(("a", "me"), **parts).goes_on
    assert Decision(**parts).goes_like(Decision(("a", "me"), **parts))
    assert not Decision(**parts).goes_like(Decision())


def test_what_is_only_delivered_or_nothing_does_not_go_on():
    assert not Decision(("a", "me")).goes_on
    assert Decision(("a", "me")).goes_like(Decision())
    assert not Decision(to=("t", ("x",))).goes_like(Decision())
