"""Where a signal handler may raise an exception: functions of the library mark themselves.

A handler runs in the main thread, in the middle of whatever that thread does. In code of the user it may
raise an exception, as Python's own handler of Ctrl-C does. In code of the library it may not: a lock would
stay held, or a change half done. A function to which another rule applies is marked by a decorator:

``@interruptible``: the function only waits, and an exception may be raised at any place of it.

``@runs_deferred``: a method that calls ``run_deferred`` as its last step, when it holds no lock any more. A
signal that comes while the method runs is passed to ``self.defer(call, *args)``, and so takes effect at the
first moment at which it does no harm.

``@runs_program``: the function calls the program of a child. Its callers are the library's frame around that
program, and do not count as code that calls it from within the library.

A mark costs nothing per call: the decorator records the function's code object and returns the function
unchanged. The sets of code objects grow only while modules are imported; so they need no lock.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from .host import is_library, is_ours

__all__ = [
    "deferring",
    "in_handler",
    "interruptible",
    "is_deferring",
    "may_raise",
    "runs_deferred",
    "runs_program",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_waits: set[CodeType] = set()
_deferring: set[CodeType] = set()
_programs: set[CodeType] = set()


def _mark(marked: set[CodeType], function: _Function) -> _Function:
    """Record the code object of a function, and return the function itself."""
    marked.add(function.__code__)
    return function


def interruptible(function: _Function) -> _Function:
    """Mark a function that only waits: a signal may raise an exception at any place of it."""
    return _mark(_waits, function)


def runs_deferred(function: _Function) -> _Function:
    """Mark a method that runs what ``self.defer`` has queued as its last step, holding no lock."""
    return _mark(_deferring, function)


def runs_program(function: _Function) -> _Function:
    """Mark the function that runs the program of a child."""
    return _mark(_programs, function)


def may_raise(frame: FrameType | None) -> bool:
    """Whether a signal handler may raise an exception in the code that it has interrupted.

    It may in code of the user, also where that has called only the standard library, and in a function marked
    ``interruptible``. The innermost frame that is not of the standard library decides.
    """
    while frame is not None:
        if is_ours(frame):
            return frame.f_code in _waits
        if not is_library(frame):
            return True
        frame = frame.f_back
    return True


def is_deferring(frame: FrameType | None) -> bool:
    """Whether this is the frame of a function that is marked ``runs_deferred``."""
    return frame is not None and frame.f_code in _deferring


def deferring(frame: FrameType | None) -> FrameType | None:
    """The innermost frame on a stack that is marked ``runs_deferred``, or None.

    None also where code of the user is further in: then the signal interrupted that code.
    """
    while frame is not None and (is_ours(frame) or is_library(frame)):
        if is_deferring(frame):
            return frame
        frame = frame.f_back
    return None


def in_handler() -> bool:
    """Whether the main thread runs code of the user that was called in the middle of the library.

    Such code is a listener, a handler of a signal, or an object that is being pickled. Called by a function
    of the library that such code may have called. In every other thread the answer is False.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    frame: FrameType | None = sys._getframe(1)
    outside = False
    while frame is not None and frame.f_code not in _programs:
        ours = is_ours(frame)
        if not ours and not is_library(frame):
            outside = True
        elif ours and outside:
            return True  # code of the user further in than code of the library
        frame = frame.f_back
    return False
