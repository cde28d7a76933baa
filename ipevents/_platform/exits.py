"""The end of the interpreter: whether the process stays after its script, and with which status it ends.

A top process whose script just ends after ``start()`` stays: a hook of ``atexit`` waits for the stop if the
script's body ended normally. After all other hooks one more ends the process with the signal that came, or
with the code that a listener asked for. All of this runs in the main thread, and so do the handlers of
signals; no lock is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import host, registry
from .clock import sleep
from .logs import Log
from .threads import start_thread

log = Log("ipevents.exits")

_RETURNS = ("RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR")

_interrupted = 0  # the signal that ended the body, or that came while the hook waited
_in_hook = False  # the hook waits: no code of the user runs in the main thread any more
_own_way: int | SystemExit | None = None  # the signal or the exit that the process is to end with


def be_last() -> None:
    """Register the hook that ends the process in its own way; called when the first emitter is made.

    Hooks run in reverse order, and those registered before this one would not run at all.
    """
    atexit.register(_end_in_own_way)


def stay() -> None:
    """Register the hook that keeps a top process alive after its script.

    Once, however often an emitter opens: a second call of the hook would find nothing open, and forget with
    which code a listener has ended the process.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def was_interrupted() -> bool:
    """Whether a signal has ended the script's body, or the wait after it."""
    return _interrupted != 0


def interrupt(number: int, frame: FrameType | None) -> bool:
    """In a handler: remember the signal that ends this process, and bring that about where no code is left.

    Returns False where the main thread, whose innermost frame this is, still runs code in which an exception
    is to be raised.
    """
    global _interrupted, _own_way
    _interrupted = number
    if _in_hook:
        registry.stop_all()
        return True
    if host.waits_for_threads(frame):
        # The script is over, but for threads that would outlive the tree.
        _own_way = number
        atexit._run_exitfuncs()  # the last of them ends the process
        return True
    return False


def body_returned() -> bool:
    """Whether the script's body ran to its end, instead of being left by an exception or sys.exit().

    The instruction at which its frame stands answers that; ``__main__.__file__`` does not, for ``-m``.
    """
    frame = host.body()
    if frame is None:
        return False
    import opcode

    at = frame.f_lasti
    return at >= 0 and opcode.opname[frame.f_code.co_code[at]] in _RETURNS


def _at_exit() -> None:
    """The hook that stays: wait for the end of all open emitters."""
    global _in_hook, _own_way
    _in_hook = True
    stays = body_returned() and not _interrupted
    exits: list[SystemExit] = []
    if not stays:
        registry.stop_all()
    while (emitter := registry.oldest()) is not None:  # it leaves the registry just before it is stopped
        if stays and emitter.cannot_serve():
            log.warning(
                "! this Python cannot start threads after the script's body: end the script with ipem.run()"
            )
        emitter.stopped.wait()
        if emitter.exit is not None:
            exits.append(emitter.exit)
    if stays:
        _own_way = _interrupted or (exits[0] if exits else None)


def _end_in_own_way() -> None:
    """The last hook: end with the signal that came, or with the code of a listener's SystemExit.

    A SystemExit raised in a hook would be printed, and lost.
    """
    if _own_way is None:
        return
    code: object = None
    if isinstance(_own_way, SystemExit):
        code = _own_way.code
        if code is not None and not isinstance(code, int):
            _write_last(f"{code}\n")
            code = 1
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if isinstance(_own_way, SystemExit):
        os._exit(int(code or 0) & 0xFF)  # type: ignore[call-overload]  # None or an int by now
    end_by(_own_way)


def end_by(number: int) -> None:
    """End with a signal's own status; called in the main thread.

    A process is still here after its own signal where it is process 1 of a container, for which the default
    action does nothing, or where it has blocked the signal: then it ends with the status that a shell shows.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def exit_soon(seconds: float, end_now: Callable[[], None]) -> None:
    """Call ``end_now`` after that time, in a thread, whatever else goes on in the process.

    If the main thread has ended the process earlier, the thread has ended with it.
    """

    def end() -> None:
        sleep(seconds)
        end_now()

    with contextlib.suppress(RuntimeError):  # the interpreter is ending: that is what was wanted
        start_thread("exit", end)


def _write_last(text: str) -> None:
    if sys.stderr is not None:  # print() would take stdout then
        with contextlib.suppress(Exception):  # closed, a broken pipe, or an object of the user's
            sys.stderr.write(text)


def _flush(stream: Any) -> None:
    """Flush a standard stream, whatever it is: it may not decide with which status the process ends.

    It is None in a daemon, closed, a broken pipe, or an object of the user's that raises what it likes.
    """
    if stream is not None:
        with contextlib.suppress(Exception):
            stream.flush()


def forget() -> None:
    """In a process made by os.fork(): nothing that the parent went through decides how this one ends."""
    global _interrupted, _in_hook, _own_way
    _own_way = None
    _interrupted, _in_hook = 0, False
    atexit.unregister(_at_exit)
