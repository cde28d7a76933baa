"""SIGINT and SIGTERM: the library's handlers, when they act, and what the second signal does.

Handlers are set only over Python's defaults, and only in the main thread. A handler never raises in the
middle of the library's own code: it looks at the frame that it interrupted, and where no exception may be
raised (see ``interruptible.py``) the signal is pending. It counts when the send that it interrupted is done,
or when it comes again in a moment (see ``signal_resend.py``) and finds a better place.

No lock: handlers run in the main thread only, and a second one interrupts the first.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from types import FrameType
from typing import Any

from .._core.stopping import Handler
from . import exits, host, registry, signal_exceptions, signal_resend
from .interruptible import deferring, is_deferring, may_raise

_Action = Callable[[int, FrameType | None], None]

_previous: dict[int, Any] = {}  # the handlers that were there before ours


# Handlers


def install() -> None:
    """Set the handlers of a top process, each over Python's default only."""
    if threading.current_thread() is threading.main_thread():
        _set(signal.SIGINT, signal.default_int_handler, _on_interrupt)
        _set(signal.SIGTERM, signal.SIG_DFL, _on_terminate)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _excepthook


def install_in_child() -> None:
    """Set the handler of a child: the terminal's Ctrl-C concerns the grand master, TERM ends it orderly."""
    _set(signal.SIGTERM, signal.SIG_DFL, _on_terminate)


def are_installed() -> bool:
    """Whether at least one handler was set, which stays for as long as the process lives."""
    return bool(_previous)


def ignore_interrupt() -> None:
    """Let SIGINT do nothing; the first step of a child.

    By a function instead of SIG_IGN, which the programs that the child starts would inherit.
    """
    signal.signal(signal.SIGINT, _on_child_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by our start, see process.py


def term_handler() -> Handler:
    """What SIGTERM does in this process just now. From any thread."""
    found = signal.getsignal(signal.SIGTERM)
    if found is _on_terminate:
        return Handler.OURS
    if found == signal.SIG_DFL:
        return Handler.DEFAULT
    return Handler.IGNORED if found == signal.SIG_IGN else Handler.USERS


def uninstall() -> None:
    """In a process made by os.fork(): the handlers are the parent's, and so is what is pending."""
    signal_resend.forget()
    for number, default in _previous.items():
        if signal.getsignal(number) in (_on_interrupt, _on_terminate):
            signal.signal(number, default)
    if signal.getsignal(signal.SIGINT) is _on_child_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.excepthook is _excepthook:
        sys.excepthook = sys.__excepthook__
    _previous.clear()


def _set(number: int, default: Any, handler: Any) -> None:
    current = signal.getsignal(number)
    if current == default:
        _previous[number] = current
        signal.signal(number, handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if signal_resend.counts(number):
        _interrupt(number, frame)


def _on_terminate(number: int, frame: FrameType | None) -> None:
    if signal_resend.counts(number):
        _terminate(number, frame)


def _on_child_interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C in the terminal, which the grand master gets as well: it stops the tree."""


def _excepthook(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
    """Show no traceback of Ctrl-C, which is no error of the script; show everything else as ever."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)


# What the signals do


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _may_act(number, frame, _interrupt) and not exits.interrupt(number, frame):
        raise signal_exceptions.marked(KeyboardInterrupt())


def _terminate(number: int, frame: FrameType | None) -> None:
    child = registry.child()
    if child is not None and child.takes_no_signal():
        signal_resend.pending.discard(number)
        return
    if not _may_act(number, frame, _terminate) or exits.interrupt(number, frame):
        return
    if child is None:
        raise signal_exceptions.marked(SystemExit(128 + number))
    life = child.life  # a stop is an end in order; without one somebody wants this child alone to end
    raise signal_exceptions.terminated(
        0 if life.stopping.is_set() and not life.stopped.is_set() else 128 + number
    )


def _is_second(frame: FrameType | None) -> bool:
    """Whether the process is about to end for a signal that came before this one.

    A program that has caught KeyboardInterrupt and goes on is not: its next Ctrl-C is a first one again.
    """
    if not exits.was_interrupted() or registry.child() is not None:
        return False
    if registry.is_stopping() or signal_exceptions.is_at_work():
        return True
    return host.has_left_body(frame)  # in exit hooks, or waiting for threads


def _end_now(number: int) -> None:
    """The second signal: KILL the children and end, with the signal's own status."""
    registry.kill_children()
    exits.end_by(number)


# Signals that came at a bad moment


def _may_act(number: int, frame: FrameType | None, action: _Action) -> bool:
    """Whether a signal may have its effect now; if not, ``action`` is called again with a better frame.

    The second signal ends the process here, whatever was interrupted.
    """
    if _is_second(frame):
        _end_now(number)
    if may_raise(frame):
        signal_resend.pending.discard(number)
        return True
    signal_resend.pending.add(number)
    _postpone(number, frame, action)
    return False


def _postpone(number: int, frame: FrameType | None, action: _Action) -> None:
    send = deferring(frame)
    if send is not None:
        send.f_locals["self"].defer(_send_is_done, number, action)
    # Resent in either case: the send may just have looked at what was deferred for the last time.
    if registry.resend(number):
        return
    # Nothing is open: in a start(), or in the last steps of a stop. A thread as threading makes it would
    # need a lock that the code below us may hold.
    with contextlib.suppress(RuntimeError):
        start_new_thread(signal_resend.send_later, (number,))


def _send_is_done(number: int, action: _Action) -> None:
    """The call that an interrupted send has deferred. Raises what the action raises, where user code follows.

    Called by ``run_deferred``, which that send has called itself, as its last step.
    """
    runner = sys._getframe(1)
    frame = runner.f_back
    if number not in signal_resend.pending or not is_deferring(frame):
        return  # deferred to a moment within something else: the signal comes again
    while frame is not None and host.is_ours(frame):
        if frame.f_code is runner.f_code:
            return  # that send was a deferred one itself
        frame = frame.f_back
    action(number, frame)
