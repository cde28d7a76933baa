"""Signal handlers that raise, at each place of the library where CPython may run one.

It looks for signals where a function begins, after a call of a C function, and at a jump back; on 3.10 also
after the call of a Python function, and where a conditional jump is taken. Never between plain assignments,
and not after an operator.
"""

from __future__ import annotations

import _thread
import dis
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipevents

PACKAGE = str(Path(ipevents.__file__).parent)
LOOKS_AFTER_PYTHON_CALLS = LOOKS_AT_CONDITIONAL_JUMPS = sys.version_info < (3, 11)
MOST_SECONDS = 8.0  # a wait that does not notice a signal takes 10 and more


class Raised(Exception):
    """What the handler raises."""


class Interruption:
    """Calls something, and ``act()`` (which raises, if it does not say otherwise) at the given place.

    Without ``after_python_calls`` not between the return of a Python function and what is done with its
    result, where only 3.10 looks: what was made there has no owner yet.
    """

    def __init__(
        self,
        place: int,
        act: Callable[[], object] | None = None,
        *,
        after_python_calls: bool = LOOKS_AFTER_PYTHON_CALLS,
    ) -> None:
        self._left = place
        self._after_python_calls = after_python_calls
        self._act = act
        self.was_raised = False
        self.where = ""
        self._called: dict[
            Any, bool
        ] = {}  # frame: its last operation was a call, and not of a Python function
        self._at: dict[Any, int] = {}

    def run(self, call: Callable[[], object]) -> bool:
        """Returns whether there was such a place. No signal may be blocked afterwards that was not before."""
        outer = sys.gettrace()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        sys.settrace(self._trace)
        try:
            # In a generator, which has a state of its own for the exception being handled: where a trace
            # function raises at the end of an ``except`` block, CPython forgets to take that back.
            next(call() for _ in (None,))
        except Raised:
            self.was_raised = True
        finally:
            sys.settrace(outer)
            self._called, self._at = {}, {}  # a frame keeps alive what it has
            after = signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # for the tests that follow
        assert after == blocked, self.where
        return self._left <= 0

    def _trace(self, frame: Any, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "call":
            if frame in self._at and frame.f_code.co_flags & inspect.CO_GENERATOR:
                return self._trace  # goes on, or is closed: no place then, what was raised would be swallowed
            if not self._after_python_calls and frame.f_back in self._called:
                self._called[frame.f_back] = False
            self._look(frame)
        elif event == "opcode":
            at = frame.f_lasti
            name = dis.opname[frame.f_code.co_code[at]]
            # On 3.11 a call is PRECALL and CALL, or PRECALL alone.
            called = self._called.get(frame) and name != "CALL"
            last = self._at.get(frame, -1)
            jumped = (
                LOOKS_AT_CONDITIONAL_JUMPS
                and at != last + 2
                and last >= 0
                and dis.opname[frame.f_code.co_code[last]].startswith("POP_JUMP_IF")
            )
            if called or jumped or at < last:
                self._called[frame] = False
                self._look(frame)
            self._at[frame] = at
            self._called[frame] = name.startswith(("CALL", "PRECALL")) and "INTRINSIC" not in name
        return self._trace

    def _look(self, frame: Any) -> None:
        self._left -= 1
        if self._left == 0:
            if sys.version_info >= (3, 11):
                name = frame.f_code.co_qualname
            else:
                names = [frame.f_code.co_name]
                if "self" in frame.f_locals:
                    names.insert(0, type(frame.f_locals["self"]).__name__)
                name = ".".join(names)
            self.where = f"{name}:{frame.f_lineno}"
            if self._act is None:
                raise Raised
            self._act()


def check_unnoticed(wait: Callable[[], object]) -> None:
    """Check that a wait is ended by a signal whose handler raises, also where that ends no system call.

    So it is with a signal that comes between the last look of the interpreter and the system call.
    """
    over = threading.Event()
    noticed = False

    def fail(number: int, frame: object) -> None:
        if not over.is_set():
            over.set()
            raise LookupError

    def come() -> None:
        while not over.wait(0.01):
            _thread.interrupt_main(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, fail)
    comes = threading.Thread(target=come)
    begun = time.monotonic()
    try:
        comes.start()
        wait()
    except LookupError:
        noticed = True
    finally:
        over.set()
        comes.join()
        signal.signal(signal.SIGUSR1, previous)
    assert noticed
    assert time.monotonic() - begun < MOST_SECONDS, "the wait has ended by itself"
