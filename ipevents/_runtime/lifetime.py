"""Staying alive, signals, the end of the interpreter, and forks: what concerns the whole process.

A top process whose script just ends after ``start()`` stays: one ``atexit`` hook waits for the stop if the
script's body ended normally. Signal handlers are set only over Python's defaults, only in the main
thread. A handler never raises in the middle of the library's own code: it looks at the frame that it
interrupted, and where that is ours the signal is pending: it counts when the send that it interrupted
is done, or when it comes again in a moment (see ``again.py``) and finds a better place.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import types
import weakref
from _thread import start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.stopping import Handler
from . import again, dial, interrupts
from .clock import sleep
from .logs import Log
from .node import Node
from .outgoing import Outgoing
from .programs import execute
from .threads import (
    Latch,
    MainBell,
    acquire_from_user,
    forget_main_bell,
    forget_threads,
    main_ident,
    start_thread,
)

if TYPE_CHECKING:
    from .childhood import Childhood
    from .life import Life

log = Log("ipevents.lifetime")

_PACKAGE = __name__.partition(".")[0]
_OURS = frozenset({_PACKAGE, "blinker", "cloudpickle"})
_LIBRARY = (os.path.dirname(os.__file__), "<frozen")  # sysconfig would say it, and take long to import
# Where an exception may be raised although it is our code: there we only wait (dial: in ``start()``).
_WAITS = frozenset(
    wait.__code__ for wait in (Latch.wait, MainBell.wait, acquire_from_user, dial.connect, dial.receive)
)
# These run what was deferred before they return, holding nothing any more.
_SENDS = frozenset({Outgoing.send.__code__, Outgoing.write_dirty.__code__, Node.emit.__code__})
_RETURNS = ("RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR")

_registered = False
_lives: weakref.WeakSet[Life] = weakref.WeakSet()  # all emitters of this process, for forks
_open: list[Life] = []  # the open ones of a top process, oldest first
_child: Childhood | None = None  # of the emitter that serves as somebody's child
_module_frame: Any = None  # of the script's body
_interrupted = 0  # the signal that ended the body, or that came while the hook waited
_in_hook = False
_own_way: int | SystemExit | None = None  # the signal or the exit that the process is to end with
_previous: dict[int, Any] = {}


def register(life: Life) -> None:
    """Know an emitter from its making on. The first time: hooks for forks and for the very end.

    That one is made so early because exit hooks run in reverse order: it ends the process in its own
    way, and the hooks behind it would not run any more.
    """
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_forked)
        atexit.register(_end_in_own_way)
    _lives.add(life)


def watch(life: Life) -> None:
    """A top process opens this emitter: signals, and the hook that keeps the process alive."""
    global _module_frame
    if not _open and not _previous:
        _module_frame = _find_module_frame()
        atexit.register(_at_exit)
        if threading.current_thread() is threading.main_thread():
            _install(signal.SIGINT, signal.default_int_handler, _on_interrupt)
            _install(signal.SIGTERM, signal.SIG_DFL, _on_terminate)
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _excepthook
    _open.append(life)


def unwatch(life: Life) -> None:
    """The emitter is stopped."""
    if life in _open:
        _open.remove(life)


def serve_child(childhood: Childhood) -> None:
    """The signals of a child: the terminal's Ctrl-C is the root's business, TERM ends it orderly."""
    global _child
    _child = childhood
    _install(signal.SIGTERM, signal.SIG_DFL, _on_terminate)


def take_signals() -> None:
    """First thing in a child: SIGINT does nothing, and SIGTERM can end it, whatever was inherited.

    SIGINT by a function, so that what the child execs hears it. SIGTERM is what a stop sends. A process
    that ignores it, or has it blocked, to be left alone itself (under ``trap '' TERM``, in a thread that
    waits by ``sigwait``) means no child of its own by that; each stop of such a child would take all its
    time, and end by KILL. A program that sets SIG_IGN in the child itself keeps it.
    """
    signal.signal(signal.SIGINT, _on_child_interrupt)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The first was blocked by our start, see process.py.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def in_handler() -> bool:
    """Whether the main thread is in a wait of the library that a signal handler of the user interrupted."""
    if threading.current_thread() is not threading.main_thread():
        return False
    frame: types.FrameType | None = sys._getframe(2)
    outside = False
    while frame is not None and frame.f_code is not execute.__code__:  # what a child runs is called by us
        ours = _is_ours(frame)
        if not ours and not _is_library(frame):
            outside = True
        elif ours and outside:
            return True  # user code above library code: a handler, a listener, a pickled object
        frame = frame.f_back
    return False


def exit_soon(seconds: float, end_now: Callable[[], None]) -> None:
    """End the process after that time unless its main thread has done so, whatever else goes on in it."""

    def end() -> None:
        sleep(seconds)
        end_now()

    with contextlib.suppress(RuntimeError):  # the interpreter is ending: that is what was wanted
        start_thread("exit", end)


# Signals


def _install(number: int, default: Any, handler: Any) -> None:
    current = signal.getsignal(number)
    if current == default:
        _previous[number] = current
        signal.signal(number, handler)


def _may_raise(frame: types.FrameType | None) -> bool:
    """Whether an exception may be raised in the code that a signal has interrupted."""
    while frame is not None:
        if _is_ours(frame):
            return frame.f_code in _WAITS
        if not _is_library(frame):
            return True
        frame = frame.f_back
    return True


def _is_ours(frame: types.FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _OURS


def _is_library(frame: types.FrameType) -> bool:
    path = frame.f_code.co_filename
    return path.startswith(_LIBRARY) and "site-packages" not in path


def _on_interrupt(number: int, frame: types.FrameType | None) -> None:
    if again.counts(number):
        _interrupt(number, frame)


def _on_terminate(number: int, frame: types.FrameType | None) -> None:
    if again.counts(number):
        _terminate(number, frame)


def _on_child_interrupt(number: int, frame: types.FrameType | None) -> None:
    """Ctrl-C in the terminal, which the grand master hears as well: it stops the tree."""


def term_handler() -> Handler:
    """What SIGTERM does in this process just now. From any thread."""
    return interrupts.handler(_on_terminate)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    if _may_act(number, frame, _interrupt) and not _ends_without(number, frame):
        raise interrupts.marked(KeyboardInterrupt())


def _terminate(number: int, frame: types.FrameType | None) -> None:
    child = _child
    if child is not None and child.takes_no_signal():
        again.pending.discard(number)
        return
    if not _may_act(number, frame, _terminate) or _ends_without(number, frame):
        return
    if child is None:
        raise interrupts.marked(SystemExit(128 + number))
    # A stop is an end in order, also where the program has asked for it by itself and goes on after it; else
    # somebody wants this child alone to end.
    raise interrupts.terminated(0 if child.life.stopping.is_set() else 128 + number)


def _ends_without(number: int, frame: types.FrameType | None) -> bool:
    """Whether the process ends for this signal without an exception: no code is left to raise it at."""
    global _interrupted, _own_way
    _interrupted = number
    if _in_hook:
        for life in list(_open):
            life.request_stop(None)
        return True
    if _waits_for_threads(frame):
        # The script is over, but for threads that would outlive the tree.
        _own_way = number
        atexit._run_exitfuncs()  # the last of them ends the process
        return True
    return False


def _is_second(frame: types.FrameType | None) -> bool:
    """Whether the process is about to end for a signal that came before this one.

    A program that has caught KeyboardInterrupt and goes on is not: its next Ctrl-C is a first one again.
    """
    if not _interrupted or _child is not None:
        return False
    if any(life.stopping.is_set() for life in _open) or interrupts.is_at_work():
        return True
    if _module_frame is None or interrupts.is_interactive():
        return False
    return not interrupts.is_below(_module_frame, frame)  # in exit hooks, or waiting for threads


def _waits_for_threads(frame: types.FrameType | None) -> bool:
    """Whether the main thread is behind the script and waits for the user's threads to end."""
    while frame is not None:
        if frame.f_code is threading._shutdown.__code__:  # type: ignore[attr-defined]  # Python's own last wait
            return True
        frame = frame.f_back
    return False


# Signals that came at a bad moment


Action = Callable[[int, types.FrameType | None], None]


def _may_act(number: int, frame: types.FrameType | None, action: Action) -> bool:
    """Whether a signal may have its effect now; if not, ``action`` is called again with a better frame.

    The second signal ends the process here, whatever was interrupted.
    """
    if _is_second(frame):
        _end_now(number)
    if _may_raise(frame):
        again.pending.discard(number)
        return True
    again.pending.add(number)
    _postpone(number, frame, action)
    return False


def _postpone(number: int, frame: types.FrameType | None, action: Action) -> None:
    inner = frame
    while inner is not None and (_is_ours(inner) or _is_library(inner)):
        if inner.f_code in _SENDS:
            inner.f_locals["self"].defer(_send_is_done, number, action)
            break
        inner = inner.f_back
    # Also if it is in a send: that may just have looked at what was deferred for the last time.
    for life in ([_child.life] if _child else []) + _open:
        if life.supervisor is not None and life.supervisor.resend(number):
            return
    # Nothing is open: in a start(), or in the last steps of a stop. A thread as threading makes it would
    # need a lock that the code below us may hold.
    with contextlib.suppress(RuntimeError):
        start_new_thread(again.send_later, (number,))


def _send_is_done(number: int, action: Action) -> None:
    """What the interrupted send has deferred. Raises what the action raises, where user code follows."""
    frame: types.FrameType | None = sys._getframe(2)
    if number not in again.pending or frame is None or frame.f_code not in _SENDS:
        return  # deferred to a moment within something else: the signal comes again
    while frame is not None and _is_ours(frame):
        if frame.f_code is Node.run_deferred.__code__:
            return  # that send was a deferred one itself
        frame = frame.f_back
    action(number, frame)


def _end_now(number: int) -> None:
    """The second signal: KILL the children and end, with the signal's own status."""
    for life in list(_open):
        if life.supervisor is not None:
            life.supervisor.kill_all()
    _end_by(number)


def _end_by(number: int) -> None:
    """End with a signal's own status, in the main thread.

    What is still here afterwards is process 1 of a container, for which the default action does nothing,
    or has blocked the signal: then with the status that a shell would show for it.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _excepthook(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
    """Ctrl-C is no error of the script; everything else is shown as ever."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)


# The end of the interpreter


def _find_module_frame() -> Any:
    """The frame of the script's body, if that is what runs in the main thread."""
    frame = sys._current_frames().get(main_ident())
    main = sys.modules.get("__main__")
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and main is not None and frame.f_globals is main.__dict__:
            found = frame
        frame = frame.f_back
    return found


def _body_returned() -> bool:
    """Whether the script's body ran to its end, instead of being left by an exception or sys.exit().

    The instruction at which its frame stands tells; ``__main__.__file__`` tells nothing for ``-m``.
    """
    frame = _module_frame
    if frame is None or interrupts.is_interactive():
        return False
    import opcode

    at = frame.f_lasti
    return at >= 0 and opcode.opname[frame.f_code.co_code[at]] in _RETURNS


def _at_exit() -> None:
    global _in_hook, _own_way
    _in_hook = True
    stays = _body_returned() and not _interrupted
    exits: list[SystemExit] = []
    if not stays:
        for life in list(_open):
            life.request_stop(None)
    while _open:  # an emitter leaves it just before it is stopped
        life = _open[0]
        if stays and life.gate is not None and life.gate.cannot_serve():
            log.warning(
                "! this Python cannot start threads after the script's body: end the script with ipem.run()"
            )
        life.stopped.wait()
        if life.exit is not None:
            exits.append(life.exit)
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
    _end_by(_own_way)


def _write_last(text: str) -> None:
    if sys.stderr is not None:  # print() would take stdout then
        with contextlib.suppress(Exception):  # closed, a broken pipe, or an object of the user's
            sys.stderr.write(text)


def _flush(stream: Any) -> None:
    """Nothing that a standard stream does may decide with which status the process ends.

    It is None in a daemon, closed, a broken pipe, or an object of the user's that raises what it likes.
    """
    if stream is not None:
        with contextlib.suppress(Exception):
            stream.flush()


# Forks


def _forked() -> None:
    """In a process made by os.fork(): open emitters belong to the parent, and so do handlers and hooks.

    Nothing that the parent went through may decide how this process ends.
    """
    global _child, _module_frame, _interrupted, _in_hook, _own_way
    forget_main_bell()
    forget_threads()
    _module_frame = _own_way = None
    _interrupted, _in_hook = 0, False
    for life in list(_lives):
        life.abandon()
    _open.clear()
    again.forget()
    _child = None
    atexit.unregister(_at_exit)
    for number, default in _previous.items():
        if signal.getsignal(number) in (_on_interrupt, _on_terminate):
            signal.signal(number, default)
    if signal.getsignal(signal.SIGINT) is _on_child_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.excepthook is _excepthook:
        sys.excepthook = sys.__excepthook__
    _previous.clear()
