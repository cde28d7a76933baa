from __future__ import annotations

import inspect

from ipevents._lifecycle.child_main import ChildRole
from ipevents._platform.threads import Deadline
from ipevents._processes.role import Role, TopRole


def test_both_roles_have_all_that_is_asked_of_one():
    for name, method in vars(Role).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            for role in TopRole, ChildRole:
                assert list(inspect.signature(getattr(role, name)).parameters) == list(
                    inspect.signature(method).parameters
                )


def test_a_top_process_waits_for_nobody_and_reports_to_nobody():
    asked = []
    role = TopRole(lambda timeout: asked.append(timeout) or True)
    assert not role.is_child
    assert role.link is None
    assert role.wait_stop(2.5)
    assert asked == [2.5]
    assert role.has_left()
    assert role.hurry(Deadline(1.0), alone=True) is None
    assert not role.ends_at_once
