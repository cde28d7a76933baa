"""Children that may hang: who is asked what runs there, and what follows on the answer.

When to ask, and what an answer means, is decided in ``_core/vigil.py``, of which each running process of a
child with a ``hangTimeout`` has one. Here it is asked over the control channel.

Everything runs in the supervisor's thread, but ``_written``. The state lock guards the vigils. What is
reported is reported after it is released.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .._core.vigil import Act, Vigil
from .._exceptions import Hung, ProcessError
from .._node.node import Node
from .._platform.clock import monotonic
from .child_state import ChildState


class Vigils:
    """The vigils over the children of one process.

    ``ring()`` lets the supervisor look again; ``report(child, error)`` delivers an error about a child.
    """

    def __init__(
        self,
        node: Node,
        ring: Callable[[], None],
        report: Callable[[ChildState, ProcessError], None],
    ) -> None:
        self._node = node
        self._ring = ring
        self._report = report

    def told(self, child: ChildState, kind: int, items: dict[str, Any]) -> None:
        """Handle the record RUNS of a child."""
        number, running = items["number"], items["running"]
        with self._node.lock:
            vigil = child.vigil
            if vigil is None:
                return
            now = monotonic()
            if number == 0 and running is None:  # it stops by itself
                child.vigil = None
                return
            if number == 0:
                vigil.begins(now)
                return
            seconds = None if running is None else running / 1000
            act = vigil.answered(now, number, seconds, owes=child.link.owes)
            if act is Act.SLEEP:
                self._sleep(child, vigil, now)
        if act is Act.HUNG:
            assert seconds is not None
            told = (round(seconds, 3), items["listener"], items["text"])
            self._hung(child, vigil, Hung(child.pid, child.name, *told))

    def _sleep(self, child: ChildState, vigil: Vigil, now: float) -> None:
        """Ask a child no more until something is written to it, or begins to run there. State lock held."""
        stream = child.link.connection
        if stream is not None:
            child.was_written_to = False
            stream.call_at_write(partial(self._written, child))
        if stream is None or child.link.owes:  # asked again: it may have been written just now
            vigil.begins(now)

    def _written(self, child: ChildState) -> None:
        """Note that something was written to a child. In any thread, perhaps with the state lock held."""
        child.was_written_to = True
        self._ring()

    def watch(self, child: ChildState, now: float) -> None:
        """Ask a child what runs in it, or kill it because it gives no answer, where it is time for that."""
        with self._node.lock:
            vigil = child.vigil
            if vigil is None or not child.alive:
                return
            if child.was_written_to:
                child.was_written_to = False
                vigil.begins(now)
            act = vigil.look(now)
            if act is Act.ASK:
                child.ask()
                self._ring()  # to write it
        if act is Act.SILENT:
            assert child.process is not None
            why = _why(child.process.pid)
            self._hung(child, vigil, Hung(child.pid, child.name, vigil.limit, why=why))

    def _hung(self, child: ChildState, vigil: Vigil, error: Hung) -> None:
        """Report a child that hangs, and kill it. It is started again as after any other death.

        Does nothing where the child was asked to stop meanwhile.
        """
        with self._node.lock:
            if child.vigil is not vigil or not child.alive:
                return
            child.vigil = None
            child.kill_at = monotonic()
        self._report(child, error)
        self._ring()


def _why(pid: int) -> str:
    """Return why a process may give no answer, as far as the system tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # no such file system, or the process has ended
        state = b""
    if state in (b"T", b"t"):
        return "its process is stopped, by a SIGSTOP or a debugger"
    if state == b"D":
        return "its process waits for a device, or for a file of another machine"
    return "it may be in C code that keeps other threads from running"
