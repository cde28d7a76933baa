"""The wait for an event: what ``Emitter.waitFor`` and ``Emitter.expecting`` do."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core.messages import Message
from ._exceptions import Closed
from ._platform.latches import Latch
from ._platform.signal_exceptions import interrupts_main
from ._platform.threads import Deadline

if TYPE_CHECKING:
    from ._child import Child
    from ._dispatch.listeners import Wait
    from ._lifecycle.lifecycle import Lifecycle

Where = Callable[..., Any]


class Expectation:
    """What ``Emitter.expecting`` returns: a context manager that waits for an event at the end of its block.

    It listens from before the block runs. After the block, ``message`` is the event that came. If the block
    raises, it does not wait. It may be entered again, one time after the other.

    No lock: ``_heard`` writes ``_message`` or ``_failure`` and then sets ``_came``, and the waiting thread
    reads them after that. The wait ends at the latest with a stop of the emitter, which sets the latches of
    all waits.
    """

    def __init__(
        self,
        life: Lifecycle,
        event: str,
        timeout: float | None,
        where: Where | None,
        child: Child | None = None,
    ) -> None:
        self._message: Message | None = None
        self._life = life
        self._event = event
        self._timeout = timeout
        self._where = where
        self._child = None if child is None else child._state
        self._came = Latch()
        self._listens: Wait | None = None  # from __enter__ to __exit__
        self._failure: BaseException | None = None

    @property
    def message(self) -> Message:
        """The message of the event that came. Raises AttributeError as long as none has come."""
        if self._message is None:
            raise AttributeError(
                f"no matching event {self._event!r} has come yet; its message is there after the with block"
            )
        return self._message

    def __enter__(self) -> Expectation:
        life = self._life
        life.check_wait("waiting for an event")
        # Fresh ones: it may have been used before.
        self._came, self._message, self._failure = Latch(), None, None
        try:
            self._listens = life.node.dispatcher.begin_wait(self._event, self._heard)
            if self._event == "stopping":  # this event comes only after the stop was asked for
                life.stop_waiters.add(self._came)
                is_too_late = life.stopping_said
            else:
                life.waiters.add(self._came)
                is_too_late = life.stopping.is_set()
            if self._child is not None:
                self._child.waiters.add(self._came)
                is_too_late = is_too_late or self._child.end_is_told
            if is_too_late:  # the stop may have set all latches before ours was among them
                self._came.set()
            life.first_use()
        except BaseException:  # from a listener of ready, or Ctrl-C; __exit__ is not called then
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                self._wait()
        finally:
            self._end()

    def _end(self) -> None:
        """Listen no more. May be called twice."""
        self._life.waiters.discard(self._came)
        self._life.stop_waiters.discard(self._came)
        if self._child is not None:
            self._child.waiters.discard(self._came)
        if self._listens is not None:
            self._life.node.dispatcher.end_wait(self._listens)
            self._listens = None

    def _wait(self) -> None:
        """Wait until the event comes, and raise if it does not; see ``Emitter.waitFor``."""
        deadline = Deadline(self._timeout)
        is_over = self._came.wait(deadline.left())
        if self._failure is not None:
            raise self._failure
        if self._message is not None:
            return
        if self._child is not None and self._child.end_is_told and not self._life.stopping.is_set():
            raise self._child.came_to_nothing()
        if is_over or self._life.stopping.is_set():  # a stop has ended the wait; another life may have begun
            raise Closed(f"the emitter was stopped while {self._event!r} was waited for")
        raise TimeoutError(f"no matching event {self._event!r} came within {self._timeout:g} s")

    def _heard(self, message: Message, /, *args: Any, **kwargs: Any) -> None:
        """End the wait if this event is wanted. The listener of it, in the thread that delivers."""
        if self._came.is_set():
            return
        if self._where is not None:
            try:
                if not self._where(message, *args, **kwargs):
                    return
            except BaseException as exc:  # raised in the waiting thread, whose code the filter is
                if interrupts_main(exc):
                    raise  # what a signal has raised concerns the main thread, and nothing here may keep it
                self._failure = exc
                self._came.set()
                return
        self._message = message
        self._came.set()
