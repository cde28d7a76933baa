"""The role of a top process; that of a child is in lifecycle/test_child_main.py."""

from __future__ import annotations

import inspect

import pytest

from ipevents._core.messages import FINISHED
from ipevents._lifecycle.child_main import ChildRole
from ipevents._platform.threads import Deadline
from ipevents._processes.role import Role, TopRole

METHODS = {name: value for name, value in vars(Role).items() if inspect.isfunction(value) and name[0] != "_"}


@pytest.fixture
def waits():
    return []


@pytest.fixture
def role(waits):
    def wait_end(timeout):
        waits.append(timeout)
        return timeout is None

    return TopRole(wait_end)


@pytest.mark.parametrize("kind", [TopRole, ChildRole])
def test_each_role_has_all_that_is_asked_of_one(kind):
    assert {name for name in METHODS if not hasattr(kind, name)} == set()
    parameters = {name: inspect.signature(getattr(kind, name)).parameters for name in METHODS}
    assert {name: list(found) for name, found in parameters.items()} == {
        name: list(inspect.signature(value).parameters) for name, value in METHODS.items()
    }
    kinds = {name: [one.kind for one in found.values()] for name, found in parameters.items()}
    assert kinds == {
        name: [one.kind for one in inspect.signature(value).parameters.values()]
        for name, value in METHODS.items()
    }


def test_the_facts_of_a_top_process(role):
    facts = {name: getattr(role, name) for name in Role.__annotations__}
    assert facts == {"is_child": False, "up": None, "orphaned": False, "ends_at_once": False}


@pytest.mark.parametrize("timeout", [None, 0.0, 3.5])
def test_run_waits_for_the_end_of_the_stop(role, waits, timeout):
    assert role.wait_stop(timeout) is (timeout is None)
    assert waits == [timeout]


def test_a_stop_waits_for_no_program_and_no_parent(role, waits):
    assert role.has_left()
    role.before_stop(True)
    for alone in (False, True):
        assert role.hurry(Deadline(None), alone=alone) is None
    role.wait_target(Deadline(None))
    role.last_steps()
    role.report((FINISHED,))
    role.parent_ended()
    role.look_again()
    role.abandon()
    assert waits == []
    assert not role.orphaned
