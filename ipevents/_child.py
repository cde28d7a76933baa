"""``Child``, the handle of a process that ``worker()`` or ``fork()`` has started."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from ._ask.calls import ask, ask_async
from ._ask.target import Target
from ._core.state import Stage
from ._options import MAX_STOP_SECONDS, seconds
from ._payload.outcomes import raise_again, value_of

if TYPE_CHECKING:
    from ._ask.answer import Answer
    from ._lifecycle.lifecycle import Lifecycle
    from ._processes.child_state import ChildState


class Child:
    """A child process, over all its restarts. ``worker()`` and ``fork()`` return it.

    Everything may be used from any thread. Only ``stop``, ``join``, ``result``, ``send``, ``request`` and
    ``requestAsync`` may block.
    """

    __slots__ = ("_life", "_state", "_target", "_value")

    def __init__(self, life: Lifecycle, state: ChildState) -> None:
        self._life = life
        self._state = state
        self._target = Target(child=state)
        self._value: tuple[Any] | None = None  # what its function has returned, once it was asked for

    @property
    def pid(self) -> str:
        """The pid of the process that runs now, or ran last. Each restart changes it."""
        return self._state.pid

    @property
    def name(self) -> str:
        """The name that was given to ``worker()`` or ``fork()``, or that of the function or script."""
        return self._state.name

    @property
    def process(self) -> BaseProcess | None:
        """The ``multiprocessing.Process`` that runs now. None between two of them and after the end."""
        process = self._state.process
        return None if process is None else process.process

    @property
    def alive(self) -> bool:
        """Whether a process of this child runs now."""
        return self._state.alive

    @property
    def restarts(self) -> int:
        """How often the child was started again."""
        return max(0, self._state.starts - 1)

    @property
    def exitcode(self) -> int | None:
        """The exit code of the process that ended last, as multiprocessing has it: -9 after a KILL.

        None before the first end, and if it is not known.
        """
        return self._state.exitcode

    @property
    def restart(self) -> bool | str:
        """The restart policy: True (after every exit), False (never) or ``"on-failure"`` (exit code not 0).

        May be set, and applies from the next exit on. To set any other value raises OptionsError.
        """
        return self._state.policy.policy

    @restart.setter
    def restart(self, value: bool | str) -> None:
        policy = self._life.options.merged(None, {"restart": value}, started=True).restart
        with self._life.node.lock:
            self._state.policy.policy = policy
            self._state.explicit = policy is True

    def send(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Send an event to the process that runs now, whatever its pid is.

        If that has ended and another one is about to be started, the event waits for the ``online`` of the
        new one, as it does before the first start. If that never comes, the event is lost, and counted in
        ``stats()``. Blocks and raises as ``Emitter.sendToChild`` does. Returns None.
        """
        self._life.node.outgoing.send_to_process(self._state, event, args, kwargs)

    def request(self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Ask the process that runs now, whatever its pid is, and return its answer.

        If that has ended and another one is about to be started, the request waits for the ``online`` of the
        new one, as it does before the first start. If that never comes, AnswererLost is raised. Blocks for at
        most ``timeout`` seconds (None: no limit), and raises, as ``Emitter.request`` does.
        """
        given = None if timeout is None else seconds(timeout)
        return ask(self._life.asks, self._target, event, args, kwargs, given)

    def requestAsync(self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Answer:
        """Ask as ``request`` does, and return an Answer at once.

        After ``timeout`` seconds (None: no limit) the Answer has a RequestTimeout. Blocks and raises as
        ``Emitter.requestAsync``.
        """
        given = None if timeout is None else seconds(timeout)
        return ask_async(self._life.asks, self._target, event, args, kwargs, given)

    def stop(self, timeout: float | None = None) -> None:
        """End the child gracefully, as ``Emitter.stop`` does with all children. It is not started again.

        What was sent to it before is handled first, even if the child is not online yet. After ``timeout``
        seconds (None: the option ``stopTimeout``) the process is killed.

        Blocks until the end; in a listener or a signal handler it only asks for the stop and returns. May be
        called again, and does nothing after the end. Raises TypeError or ValueError for a wrong timeout, and
        ForkedError in a process made by ``os.fork()``.
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
        """End the child's process at once by KILL. It is not started again.

        Does not wait for the end; ``join`` does. Raises ForkedError in a process made by ``os.fork()``.
        """
        self._check_fork()
        supervisor = self._life.supervisor
        if supervisor is not None and not self._state.ended.is_set():
            supervisor.children.kill_child(self._state)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the child's final end, after which it is not started again.

        Waits for at most ``timeout`` seconds (None: without limit), and returns whether the end has come. May
        still be called after the emitter was stopped. Raises WouldDeadlock in a listener, unless the end has
        come already, and TypeError or ValueError for a wrong timeout.
        """
        given = seconds(timeout)
        if not self._state.ended.is_set():
            self._life.check_join()
        return self._state.ended.wait(given)

    def result(self, timeout: float | None = None) -> Any:
        """Return what the function of this child has returned, or raise what it raised.

        A value counts as soon as it has come, whether the child lives on or not; where the function runs
        again, by ``restart=True``, the first one that is asked for stays. What the function raises counts
        once the child has ended for good. It is raised with its own type where that can be rebuilt here, with
        a RemoteError as its cause that has the traceback of the child. Otherwise, and where it is no
        Exception, that RemoteError is raised.

        Waits for at most ``timeout`` seconds (None: without limit), then raises TimeoutError. Raises
        ChildEnded if the child has ended for good without either: it was stopped or killed, or has called
        ``sys.exit()`` or ``ipem.stop()``. Raises Unpicklable for a value that could not be sent;
        UnreadablePayload for one that cannot be read here; WouldDeadlock in a listener, where it would wait;
        TypeError for a child that runs a script, and for a wrong timeout, as ValueError.
        """
        given, state = seconds(timeout), self._state
        if not state.is_function:
            raise TypeError(
                f"child {state.name} runs a script, which returns nothing; join() waits for its end"
            )
        if not state.concluded.is_set():
            self._life.check_join("result()")
        if not state.concluded.wait(given):
            raise TimeoutError(f"child {state.name} has returned nothing within {given:g} s")
        returned, raised = state.returned, state.raised
        value = self._value  # after ``returned``, which another thread may have taken
        if value is None and returned is not None:
            opened = (value_of(returned),)
            value = self._value = self._value or opened  # all callers get the same
            state.returned = None  # not kept twice
        if value is not None:
            return value[0]
        if raised is not None:
            raise_again(raised)
        raise state.came_to_nothing()

    def _check_fork(self) -> None:
        """Raise ForkedError in a process made by ``os.fork()``: the child is not its child."""
        if self._life.node.stage is Stage.FORKED:
            raise self._life.node.stage_error()

    def __repr__(self) -> str:
        state = "alive" if self.alive else "ended" if self._state.ended.is_set() else "restarting"
        return f"<Child {self.name} {self.pid} {state}, {self.restarts} restarts>"
