"""The handle of a started process."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from ._core.state import Stage
from ._options import MAX_STOP_SECONDS, seconds

if TYPE_CHECKING:
    from ._lifecycle.lifecycle import Lifecycle
    from ._processes.child_state import ChildState


class Child:
    """A process started by ``worker()`` or ``fork()``. Valid over its restarts; all of it from any thread."""

    __slots__ = ("_life", "_state")

    def __init__(self, life: Lifecycle, state: ChildState) -> None:
        self._life = life
        self._state = state

    @property
    def pid(self) -> str:
        """The pid of the process that runs now or ran last; a restart changes it."""
        return self._state.pid

    @property
    def name(self) -> str:
        """The name it was given, or its target's."""
        return self._state.name

    @property
    def process(self) -> BaseProcess | None:
        """The ``multiprocessing.Process`` that runs now, None between two of them and after the end."""
        process = self._state.process
        return None if process is None else process.process

    @property
    def alive(self) -> bool:
        """Whether a process runs now."""
        return self._state.alive

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self._state.starts - 1)

    @property
    def exitcode(self) -> int | None:
        """multiprocessing's exit code of the last process that ended: negative for a signal, None before."""
        return self._state.exitcode

    @property
    def restart(self) -> bool | str:
        """The restart policy: True, False or ``"on-failure"``. May be set; it counts from the next exit.

        Setting anything else raises OptionsError.
        """
        return self._state.policy.policy

    @restart.setter
    def restart(self, value: bool | str) -> None:
        policy = self._life.options.merged(None, {"restart": value}, started=True).restart
        with self._life.node.lock:
            self._state.policy.policy = policy
            self._state.explicit = policy is True

    def send(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """As ``sendToChild``, to the process that runs now, whatever its pid.

        Where that has ended and another one is to be started, the event waits for the ``online`` of that one,
        as before a first start; it is lost, and counted, if that never comes. Errors as for ``sendToChild``.
        """
        self._life.node.outgoing.send_to_process(self._state, event, args, kwargs)

    def stop(self, timeout: float | None = None) -> None:
        """End it gracefully, in the end by KILL, see ``Emitter.stop``; it is not started again.

        What was sent to it before is handled first, also where it has yet to say ``online``.

        Waits for the end, except in a listener, where it returns at once. ``timeout`` in seconds, None for
        the option ``stopTimeout``: after it the process is killed.
        """
        given = seconds(timeout, MAX_STOP_SECONDS)
        self._check_fork()
        supervisor = self._life.supervisor
        if supervisor is None or self._state.ended.is_set():
            return
        allowed = self._life.options.stop_timeout if given is None else given
        supervisor.children.stop_child(self._state, allowed)
        if self._life.may_wait():
            self._state.ended.wait(allowed + 1.0)

    def kill(self) -> None:
        """KILL it at once; it is not started again. Does not wait."""
        self._check_fork()
        supervisor = self._life.supervisor
        if supervisor is not None and not self._state.ended.is_set():
            supervisor.children.kill_child(self._state)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its final end, when it will not be started again; at most ``timeout`` seconds.

        Returns whether it has come, also when the emitter is stopped by now. Raises WouldDeadlock in a
        listener, unless it has come already.
        """
        given = seconds(timeout)
        if not self._state.ended.is_set():
            self._life.check_join()
        return self._state.ended.wait(given)

    def _check_fork(self) -> None:
        if self._life.node.stage is Stage.FORKED:
            raise self._life.node.stage_error()

    def __repr__(self) -> str:
        state = "alive" if self.alive else "ended" if self._state.ended.is_set() else "restarting"
        return f"<Child {self.name} {self.pid} {state}, {self.restarts} restarts>"
