"""What the library knows of the program in which it runs: its name, its body, whose code a frame runs.

The body is the frame that runs the script at top level. No lock: ``_body`` is assigned in one step, when the
first emitter opens and after a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from types import FrameType

from .threads import main_ident

_PACKAGE = __name__.partition(".")[0]
_OURS = frozenset({_PACKAGE, "blinker", "cloudpickle"})
_LIBRARY = (os.path.dirname(os.__file__), "<frozen")  # sysconfig knows it too, but takes long to import

_body: FrameType | None = None  # the frame of the script's body


def process_name() -> str:
    """The name of this process in texts for people, where its pid is shown next to it.

    In a child it is the name that ``worker(name=)`` gave it; elsewhere the name of the script, or
    multiprocessing's "MainProcess" in a REPL and with ``-c``.
    """
    name = multiprocessing.current_process().name
    if name != "MainProcess":
        return name
    first: object = sys.argv[0] if sys.argv else ""  # a program may have put any object there
    path, _, file = (first if isinstance(first, str) else "").rpartition("/")
    if file == "__main__.py":  # python -m package
        file = path.rpartition("/")[2]
    return name if file in ("", "-c", "-m") else file


def is_interactive() -> bool:
    """Whether a person types the program, so that the end of its body means nothing."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


# Frames


def is_ours(frame: FrameType) -> bool:
    """Whether the frame runs code of this library, or of the two that it is built on."""
    return frame.f_globals.get("__name__", "").partition(".")[0] in _OURS


def is_library(frame: FrameType) -> bool:
    """Whether the frame runs code of Python's standard library."""
    path = frame.f_code.co_filename
    return path.startswith(_LIBRARY) and "site-packages" not in path


def is_below(found: FrameType, frame: FrameType | None) -> bool:
    """Whether ``found`` is on the stack whose innermost frame is ``frame``."""
    while frame is not None:
        if frame is found:
            return True
        frame = frame.f_back
    return False


def waits_for_threads(frame: FrameType | None) -> bool:
    """Whether the script is over and the main thread waits for the user's threads.

    ``frame`` is the innermost frame of the main thread.
    """
    while frame is not None:
        if frame.f_code is threading._shutdown.__code__:  # type: ignore[attr-defined]  # Python's own last wait
            return True
        frame = frame.f_back
    return False


# The body of the script


def find_body() -> None:
    """Remember the frame of the script's body, if that is what the main thread is running."""
    global _body
    frame = sys._current_frames().get(main_ident())
    main = sys.modules.get("__main__")
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and main is not None and frame.f_globals is main.__dict__:
            found = frame
        frame = frame.f_back
    _body = found


def body() -> FrameType | None:
    """The frame of the script's body, also after its end.

    None where no script runs, and where a person types the program.
    """
    return None if is_interactive() else _body


def has_left_body(frame: FrameType | None) -> bool:
    """Whether the main thread, whose innermost frame this is, has left the script's body for good.

    False where the frame of the body is not known.
    """
    found = body()
    return found is not None and not is_below(found, frame)


def forget_body() -> None:
    """In a process made by os.fork(): forget the frame of the script's body, which is the parent's."""
    global _body
    _body = None
