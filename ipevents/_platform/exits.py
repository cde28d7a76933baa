"""The end of the interpreter: whether the process stays after its script, and with which status it ends.

A top process (one that no emitter has started) stays alive if its script just ends after ``start()``: a hook
of ``atexit`` waits for the stop of all emitters, provided that the script's body ended normally. Another hook
runs after all others. It ends the process with the signal that came, or with the code that a listener asked
for.

All of this runs in the main thread, as signal handlers do; so no lock is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util  # noqa: F401  # its hook, which joins all children, is to run after those here
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

_interrupted = 0  # the signal that ended the script's body, or came while the hook waited; 0 for none
_in_hook = False  # the hook waits, so the main thread runs no code of the user any more
_own_way: int | SystemExit | None = None  # what gives the process its exit status; None: the usual one


def be_last() -> None:
    """Register the hook that ends the process with its own status; called when the first emitter is made.

    Hooks run in reverse order. So this one runs after all that are registered later; those registered before
    it do not run when it ends the process.
    """
    atexit.register(_end_in_own_way)


def stay() -> None:
    """Register the hook that keeps a top process alive after its script, or stops what is open in a child.

    It is registered once, however often an emitter opens. A second call of the hook would find no open
    emitter, and would forget the exit code that a listener had asked for.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def was_interrupted() -> bool:
    """Whether a signal has ended the script's body, or came during the wait after it."""
    return _interrupted != 0


def interrupt(number: int, frame: FrameType | None) -> bool:
    """In a signal handler: remember the signal that ends this process, and end it if no code is left to run.

    ``frame`` is the innermost frame of the main thread. If the hook is waiting, all emitters are asked to
    stop. If the script is over and Python waits for the user's threads, the exit hooks run now and end the
    process.

    Returns False where the main thread still runs the program; then the caller raises an exception there.
    """
    global _interrupted, _own_way
    _interrupted = number
    if _in_hook:
        registry.stop_all()
        return True
    if host.waits_for_threads(frame):
        # Only threads of the user are left; they would keep the process alive longer than the tree.
        _own_way = number
        atexit._run_exitfuncs()  # the last of them ends the process
        return True
    return False


def body_returned() -> bool:
    """Whether the script's body ran to its end, rather than being left by an exception or sys.exit().

    The answer is the instruction at which the frame of the body stands: a return, or another one. Whether
    ``__main__.__file__`` exists would not answer it, because of ``-m``.
    """
    frame = host.body()
    if frame is None:
        return False
    import opcode

    at = frame.f_lasti
    return at >= 0 and opcode.opname[frame.f_code.co_code[at]] in _RETURNS


def _at_exit() -> None:
    """The hook that keeps the process alive: wait for the end of all open emitters.

    If the body was left by an exception, sys.exit() or a signal, the emitters are first asked to stop. So are
    those that a child has beside that of its parent.
    """
    global _in_hook, _own_way
    _in_hook = True
    stays = body_returned() and not _interrupted
    exits: list[SystemExit] = []
    if not stays:
        registry.stop_all()
    while (emitter := registry.oldest()) is not None:  # removed just before it is stopped
        if stays and emitter.cannot_serve():
            log.warning(
                "! this Python cannot start threads after the script's body: end the script with ipem.run()"
            )
        if stays:
            emitter.finish_pools()
        emitter.stopped.wait()
        if emitter.exit is not None:
            exits.append(emitter.exit)
    if stays:
        _own_way = _interrupted or (exits[0] if exits else None)


def _end_in_own_way() -> None:
    """The last hook: end the process with the signal that came, or with the code of a listener's SystemExit.

    ``os._exit`` does it, because Python would only print a SystemExit that a hook raises, and lose its code.
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
    """End the process with a signal's own status; called in the main thread. Does not return.

    A process survives its own signal if it is process 1 of a container, where the default action does
    nothing, or if it has blocked the signal. Then it exits with the status that a shell shows for that
    signal.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def exit_soon(seconds: float, end_now: Callable[[], None]) -> None:
    """Call ``end_now`` after so many seconds, in a thread, whatever happens in the process until then.

    If the main thread has ended the process earlier, the thread ends with it.
    """

    def end() -> None:
        sleep(seconds)
        end_now()

    with contextlib.suppress(RuntimeError):  # the interpreter is ending: that is what was wanted
        start_thread("exit", end)


def _write_last(text: str) -> None:
    """Write to stderr, if there is one, and ignore every failure: the process ends next."""
    if sys.stderr is not None:  # with file=None print() would write to stdout
        with contextlib.suppress(Exception):  # closed, a broken pipe, or an object of the user's
            sys.stderr.write(text)


def _flush(stream: Any) -> None:
    """Flush a standard stream, and ignore every failure: it may not change the exit status of the process.

    The stream is None in a daemon. It may be closed, a broken pipe, or an object of the user's that raises
    any exception.
    """
    if stream is not None:
        with contextlib.suppress(Exception):
            stream.flush()


def forget() -> None:
    """In a process made by os.fork(): forget the signals and exits that the parent went through.

    They do not decide how this process ends.
    """
    global _interrupted, _in_hook, _own_way
    _own_way = None
    _interrupted, _in_hook = 0, False
    atexit.unregister(_at_exit)
