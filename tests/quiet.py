"""Quiet children, as parts of the library start them: no user can."""

from __future__ import annotations

import threading

from ipevents._child import Child
from ipevents._core.restarts import RestartPolicy
from ipevents._payload.inheritance import Inheritance
from ipevents._processes import programs
from ipevents._processes.child_state import ChildState


class Owner:
    """What the owner of a quiet child is told, in order; ``wait(*told)`` waits until that was told."""

    def __init__(self):
        self.told = []
        self._changed = threading.Condition()

    def hooks(self):
        return {
            "on_online": lambda: self._note("online"),
            "on_failure": lambda error: self._note(error),
            "on_end": lambda: self._note("end"),
        }

    def _note(self, what):
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def wait(self, what, count=1, seconds=60.0):
        with self._changed:
            assert self._changed.wait_for(lambda: self.told.count(what) >= count, seconds), self.told

    @property
    def kinds(self):
        """The same with the types of errors."""
        with self._changed:
            return [what if type(what) is str else type(what) for what in self.told]


def quiet_worker(emitter, target, *args, restart=False, name="quiet", is_quiet=True, **hooks):
    """Start one that runs ``target(*args)``; returns its Child."""
    life, inherited = emitter._life, Inheritance()
    options = life.options
    state = ChildState(
        name,
        programs.function(target, args, {}, inherited),
        True,
        RestartPolicy(restart, options.delay_restart, options.max_restarts),
        restart is True,
        options.start_method,
        inherited,
        is_quiet=is_quiet,
        **hooks,
    )
    handle = state.handle = Child(life, state)
    life.add_child(state)
    return handle
