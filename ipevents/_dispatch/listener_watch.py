"""For how long the listener that runs now has been running, and what it is doing.

Nothing is measured while listeners run. Who asks compares what it finds with what it found the last time:
the number of turns on the floor, how many messages of the present frame are left, and which function runs.
So an answer is known only from the second question on, and is never too long.
"""

from __future__ import annotations

import operator
import sys
import threading
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType

from .dispatcher import Dispatcher
from .floor import Floor
from .listeners import Registration

__all__ = ["ListenerWatch"]

MAX_STACKS = 64 * 1024  # characters of all stacks together

Marker = tuple[int, int, CodeType | None]


class ListenerWatch:
    """Looks at the listeners of one process. Used by one thread, which runs no listener itself.

    ``callers``: further functions of the library that call listeners.
    """

    def __init__(self, floor: Floor, callers: Iterable[CodeType] = ()) -> None:
        self._floor = floor
        self._callers = {Dispatcher.call.__code__, Registration.__call__.__code__, *callers}
        self._marker: Marker | None = None
        self._since = 0.0
        self.listener = ""  # what ran when it was looked at last

    def look(self, now: float) -> float | None:
        """Return for how many seconds one listener has been running at least; None if none runs."""
        floor = self._floor
        owner = floor.owner
        if not owner:
            self._marker = None
            return None
        frame = sys._current_frames().get(owner)
        code = self._code(frame)
        marker = (floor.turns, operator.length_hint(floor.left), code)
        if marker != self._marker:
            self._marker, self._since = marker, now
        self.listener = "" if code is None or frame is None else _described(code, frame)
        return now - self._since

    def _code(self, frame: FrameType | None) -> CodeType | None:
        """Return the code of the listener that a thread runs: of the outermost one, where one has emitted.

        None where it is no function of Python, or has not begun yet.
        """
        inner = found = None
        while frame is not None:
            code = frame.f_code
            if code in self._callers:
                if inner is not None:
                    found = inner  # each time further out
                inner = None
            else:
                inner = code
            frame = frame.f_back
        return found

    def stacks(self) -> str:
        """Return the stacks of all threads but the calling one, that of the listener first."""
        owner, here = self._floor.owner, threading.get_ident()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found = sorted(sys._current_frames().items(), key=lambda item: item[0] != owner)
        texts = []
        for ident, frame in found:
            if ident == here:
                continue
            runs = ", which runs the listener" if ident == owner else ""
            lines = "".join(traceback.format_stack(frame))
            texts.append(f"Thread {names.get(ident, ident)}{runs} (most recent call last):\n{lines}")
        return "\n".join(texts)[:MAX_STACKS]


def _described(code: CodeType, frame: FrameType) -> str:
    """Return the name and the place of a function, and where the thread that runs it is."""
    name = getattr(code, "co_qualname", code.co_name)  # since Python 3.11
    here = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno}), now at {here}"
