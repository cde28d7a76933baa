"""The handle of a started process."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from ._core.state import Stage
from ._options import MAX_STOP_SECONDS, seconds

if TYPE_CHECKING:
    from ._lifecycle.lifecycle import Life
    from ._processes.child_state import Slot


class Child:
    """A process started by ``worker()`` or ``fork()``. Valid over its restarts; all of it from any thread."""

    __slots__ = ("_life", "_slot")

    def __init__(self, life: Life, slot: Slot) -> None:
        self._life = life
        self._slot = slot

    @property
    def pid(self) -> str:
        """The pid of the process that runs now or ran last; a restart changes it."""
        return self._slot.pid

    @property
    def name(self) -> str:
        """The name it was given, or its target's."""
        return self._slot.name

    @property
    def process(self) -> BaseProcess | None:
        """The ``multiprocessing.Process`` that runs now, None between two of them and after the end."""
        process = self._slot.process
        return None if process is None else process.process

    @property
    def alive(self) -> bool:
        """Whether a process runs now."""
        return self._slot.alive

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self._slot.starts - 1)

    @property
    def exitcode(self) -> int | None:
        """multiprocessing's exit code of the last process that ended: negative for a signal, None before."""
        return self._slot.exitcode

    @property
    def restart(self) -> bool | str:
        """The restart policy: True, False or ``"on-failure"``. May be set; it counts from the next exit.

        Setting anything else raises OptionsError.
        """
        return self._slot.policy.policy

    @restart.setter
    def restart(self, value: bool | str) -> None:
        policy = self._life.options.merged(None, {"restart": value}, started=True).restart
        with self._life.node.lock:
            self._slot.policy.policy = policy
            self._slot.explicit = policy is True

    def send(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """As ``sendToChild``, to the process that runs now, whatever its pid.

        Where that has ended and another one is to be started, the event waits for the ``online`` of that one,
        as before a first start; it is lost, and counted, if that never comes. Errors as for ``sendToChild``.
        """
        self._life.node.outgoing.send_slot(self._slot, event, args, kwargs)

    def stop(self, timeout: float | None = None) -> None:
        """End it gracefully, in the end by KILL, see ``Emitter.stop``; it is not started again.

        What was sent to it before is handled first, also where it has yet to say ``online``.

        Waits for the end, except in a listener, where it returns at once. ``timeout`` in seconds, None for
        the option ``stopTimeout``: after it the process is killed.
        """
        given = seconds(timeout, MAX_STOP_SECONDS)
        self._check_fork()
        supervisor = self._life.supervisor
        if supervisor is None or self._slot.ended.is_set():
            return
        allowed = self._life.options.stop_timeout if given is None else given
        supervisor.stop_child(self._slot, allowed)
        if self._life.may_wait():
            self._slot.ended.wait(allowed + 1.0)

    def kill(self) -> None:
        """KILL it at once; it is not started again. Does not wait."""
        self._check_fork()
        supervisor = self._life.supervisor
        if supervisor is not None and not self._slot.ended.is_set():
            supervisor.kill_child(self._slot)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its final end, when it will not be started again; at most ``timeout`` seconds.

        Returns whether it has come, also when the emitter is stopped by now. Raises WouldDeadlock in a
        listener, unless it has come already.
        """
        given = seconds(timeout)
        if not self._slot.ended.is_set():
            self._life.check_join()
        return self._slot.ended.wait(given)

    def _check_fork(self) -> None:
        if self._life.node.stage is Stage.FORKED:
            raise self._life.node.stage_error()

    def __repr__(self) -> str:
        state = "alive" if self.alive else "ended" if self._slot.ended.is_set() else "restarting"
        return f"<Child {self.name} {self.pid} {state}, {self.restarts} restarts>"
