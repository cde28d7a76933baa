"""For how long the listener that runs now has been running, and what it is doing.

Nothing is measured while listeners run. Who asks compares what it finds with what it found the last time:
the number of turns on the floor, how many messages of the present frame are left, and the frame of the
function that runs. So an answer is known only from the second question on, and is never too long.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Iterable
from types import CodeType, FrameType

from .dispatcher import Dispatcher
from .floor import Floor
from .listeners import Registration

__all__ = ["ListenerWatch"]

MAX_STACKS = 64 * 1024  # characters of all stacks together
MAX_FRAMES = 200  # of one stack, the innermost ones
PAUSE = 0.5  # of the limit: a longer time between two looks means that this process did not run


class ListenerWatch:
    """Looks at the listeners of one process. Used by one thread, which runs no listener itself.

    ``callers``: further functions of the library that call listeners.
    """

    def __init__(self, floor: Floor, callers: Iterable[CodeType] = ()) -> None:
        self._floor = floor
        self._callers = {Dispatcher.call.__code__, Registration.__call__.__code__, *callers}
        # Of the last look. The frame is held until the next one, so that no other frame is taken for it.
        self._turn: tuple[int, int] | None = None
        self._frame: FrameType | None = None
        self._running = 0.0
        self._looked = 0.0

    def look(self, now: float, limit: float) -> float | None:
        """Return for how many seconds one listener has been running at least; None if none runs.

        Of the time since the last look no more than half of ``limit`` counts: after a longer one this process
        was stopped, or suspended with its machine, and its listener did not run either.
        """
        floor = self._floor
        owner = floor.owner
        if not owner:
            self._turn = self._frame = None
            return None
        frame = self._listener(sys._current_frames().get(owner))
        turn = (floor.turns, operator.length_hint(floor.left))
        if turn == self._turn and frame is self._frame:
            self._running += min(now - self._looked, PAUSE * limit)
        else:
            self._turn, self._frame, self._running = turn, frame, 0.0
        self._looked = now
        return self._running

    def listener(self) -> str:
        """Return name and place of the listener that was seen last, and where its thread is; or ""."""
        if self._frame is None:
            return ""
        code = self._frame.f_code
        name = getattr(code, "co_qualname", code.co_name)  # since Python 3.11
        here = sys._current_frames().get(self._floor.owner)
        at = "" if here is None else f", now at {here.f_code.co_filename}:{here.f_lineno}"
        return f"{name} ({code.co_filename}:{code.co_firstlineno}){at}"

    def stacks(self) -> str:
        """Return the stacks of all threads but the calling one, that of the listener first.

        Without the lines of source: to read them could take long, and may run code of the user.
        """
        owner, here = self._floor.owner, threading.get_ident()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found = sorted(sys._current_frames().items(), key=lambda item: item[0] != owner)
        texts = []
        for ident, frame in found:
            if ident != here:
                runs = ", which runs the listener" if ident == owner else ""
                texts.append(
                    f"Thread {names.get(ident, ident)}{runs} (most recent call last):\n{_stack(frame)}"
                )
        return "\n\n".join(texts)[:MAX_STACKS]

    def _listener(self, frame: FrameType | None) -> FrameType | None:
        """Return the frame of the listener that a thread runs: of the outermost one, where one has emitted.

        None where it is no function of Python, or has not begun yet.
        """
        inner = found = None
        while frame is not None:
            if frame.f_code in self._callers:
                if inner is not None:
                    found = inner  # each time further out
                inner = None
            else:
                inner = frame
            frame = frame.f_back
        return found


def _stack(frame: FrameType | None) -> str:
    """Return a stack as a traceback shows it, without the lines of source."""
    lines: list[str] = []
    while frame is not None and len(lines) < MAX_FRAMES:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}')
        frame = frame.f_back
    return "\n".join(reversed(lines))
