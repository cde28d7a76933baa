"""What the library knows of the program in which it is a guest: its name, its body, whose frames are whose.

No lock: ``_body`` is assigned whole, when the first emitter opens and after a fork.
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
    """The name of this process in texts for people, where its pid stands beside it.

    In a child the one that ``worker(name=)`` gave it, elsewhere the name of the script; in a REPL and with
    ``-c`` multiprocessing's "MainProcess".
    """
    name = multiprocessing.current_process().name
    if name != "MainProcess":
        return name
    first: object = sys.argv[0] if sys.argv else ""  # or what a program has put there
    path, _, file = (first if isinstance(first, str) else "").rpartition("/")
    if file == "__main__.py":  # python -m package
        file = path.rpartition("/")[2]
    return name if file in ("", "-c", "-m") else file


def is_interactive() -> bool:
    """Whether somebody types the program, so that the end of its body means nothing."""
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
    """Whether the main thread, whose stack this is, has ended the script and waits for the user's threads."""
    while frame is not None:
        if frame.f_code is threading._shutdown.__code__:  # type: ignore[attr-defined]  # Python's own last wait
            return True
        frame = frame.f_back
    return False


# The body of the script


def find_body() -> None:
    """Remember the frame of the script's body, if that is what runs in the main thread just now."""
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
    """The frame of the script's body, also after its end; None where no script runs, or somebody types it."""
    return None if is_interactive() else _body


def has_left_body(frame: FrameType | None) -> bool:
    """Whether the main thread, whose innermost frame this is, has left the script's body for good.

    False where it is not known which frame that is.
    """
    found = body()
    return found is not None and not is_below(found, frame)


def forget_body() -> None:
    """In a process made by os.fork(): the script's body is the parent's."""
    global _body
    _body = None
