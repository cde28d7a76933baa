"""The workers of a pool: started, watched and stopped as quiet children of this emitter."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core.restarts import RestartPolicy
from .._payload.inheritance import Inheritance
from .._platform.latches import Latch
from .._processes.child_state import ChildState
from .._processes.programs import Program
from .lifecycle import Lifecycle

if TYPE_CHECKING:
    from .._ask.pool import Pool


class PoolStaff:
    """What ``Pool`` calls to have workers, see ``Staff`` there. All of them run the same program."""

    def __init__(self, life: Lifecycle, program: Program, inherited: Inheritance) -> None:
        self._life = life
        self._program = program
        self._inherited = inherited

    def start(self, name: str, pool: weakref.ref[Pool]) -> ChildState:
        """Start one worker. Raises as ``Lifecycle.add_child``."""

        def tell(what: Callable[[Pool], None]) -> None:
            """Tell the pool what has happened, if it is still there."""
            found = pool()
            if found is not None:
                what(found)

        options = self._life.options
        child = ChildState(
            name,
            self._program,
            True,
            RestartPolicy(True, 0.0, None),
            True,
            options.start_method,
            self._inherited,
            stop_grace=options.stop_grace,
            leave_timeout=options.leave_timeout,
            is_quiet=True,
            on_online=lambda: tell(lambda found: found._on_online(child)),
            on_failure=lambda error: tell(lambda found: found._on_failure(error)),
            on_end=lambda: tell(lambda found: found._on_end()),
        )
        self._life.add_child(child)
        return child

    def stop(self, worker: ChildState) -> None:
        """Ask a worker to end. Does not wait."""
        supervisor = self._life.supervisor
        if supervisor is not None and not worker.ended.is_set():
            supervisor.children.stop_child(worker, self._life.options.stop_timeout)

    def ended(self, worker: ChildState) -> Latch:
        """Return the latch that is set when a worker has ended for good."""
        return worker.ended

    def is_reliable(self, worker: ChildState) -> None:
        """Forget earlier deaths of a worker: it has come as far as to do jobs, so it need not wait again."""
        with self._life.node.lock:
            worker.policy.young_deaths = 0
