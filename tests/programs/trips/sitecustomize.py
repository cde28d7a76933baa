"""Records who calls whom in the package; Python imports this first in each process of a trip, see trips.py.

Each call of a function of the package becomes a line in a file of the process: time, thread, caller, callee.
It is written at once, so that a process that is killed has left what it did.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import CodeType, FrameType

PACKAGE = os.environ["IPEVENTS_TRIPS_PACKAGE"] + os.sep
FOLDER = os.environ["IPEVENTS_TRIPS_FOLDER"]
LIBRARIES = (os.path.dirname(os.__file__) + os.sep, "<frozen")

_file = (0, -1)  # the process that has opened it, and the descriptor


def begin(trip: str) -> None:
    """A trip begins, in this thread."""
    _write("begin", trip)


def end(trip: str) -> None:
    """It has ended."""
    _write("end", trip)


def _write(*words: str) -> None:
    global _file
    pid = os.getpid()
    if _file[0] != pid:  # also in a process that was forked
        name = os.path.join(FOLDER, f"{pid}.calls")
        _file = pid, os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = "\t".join((str(time.monotonic_ns()), str(threading.get_ident()), *words))
    os.write(_file[1], f"{line}\n".encode())


def _called(frame: FrameType, event: str, arg: object) -> None:
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(PACKAGE) or _is_import(frame):
        return
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
        if not caller.f_code.co_filename.startswith(LIBRARIES):
            caller = None  # the program, or a listener: it may call what it likes
            break
        caller = caller.f_back
    _write("" if caller is None else _name(caller.f_code), _name(code))


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            return True
        frame = frame.f_back
    return False


def _name(code: CodeType) -> str:
    function = getattr(code, "co_qualname", code.co_name)  # 3.10 has the short name only
    return f"{code.co_filename[len(PACKAGE) :]}:{function}:{code.co_firstlineno}"


threading.setprofile(_called)
sys.setprofile(_called)
