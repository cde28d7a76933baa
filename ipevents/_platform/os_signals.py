"""SIGINT and SIGTERM: the library's handlers, when they act, and what the second signal does.

Handlers are set only where Python's defaults were, and only in the main thread.

A handler never raises in the middle of the library's own code. It looks at the frame that it has interrupted.
Where no exception may be raised (see ``interruptible.py``), the signal stays pending. It takes effect when
the send that it interrupted is done, or when it is sent again a moment later (see ``signal_resend.py``) and
finds a better place.

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

_previous: dict[int, Any] = {}  # by signal: the handler that was there before ours


# Handlers


def install() -> None:
    """Set the handlers of a top process, each only where Python's default was.

    The exception hook is replaced as well, so that Ctrl-C prints no traceback.
    """
    if threading.current_thread() is threading.main_thread():
        _set(signal.SIGINT, signal.default_int_handler, _on_interrupt)
        _set(signal.SIGTERM, signal.SIG_DFL, _on_terminate)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _excepthook


def install_in_child() -> None:
    """Set the handler of a child: SIGTERM ends it in order.

    SIGINT has a handler since ``take_in_child``: Ctrl-C in the terminal concerns the grand master.
    """
    _set(signal.SIGTERM, signal.SIG_DFL, _on_terminate)


def are_installed() -> bool:
    """Whether at least one handler was set; it stays for as long as the process lives."""
    return bool(_previous)


def take_in_child() -> None:
    """Let SIGINT do nothing and SIGTERM be able to end the process; the first step of a child.

    SIGINT gets a function instead of SIG_IGN, which programs started by the child would inherit.

    SIGTERM is what a stop sends. A parent may ignore or block SIGTERM to be left alone itself (under ``trap
    '' TERM``, or because a thread waits in ``sigwait``). It does not mean its children by that; a child that
    inherited this would use up the whole time of each stop and then be killed. A program that sets SIG_IGN in
    the child itself keeps it.
    """
    signal.signal(signal.SIGINT, _on_child_interrupt)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The start of this child blocked SIGINT, see process.py.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def term_handler() -> Handler:
    """What SIGTERM does in this process at the moment. From any thread."""
    found = signal.getsignal(signal.SIGTERM)
    if found is _on_terminate:
        return Handler.OURS
    if found == signal.SIG_DFL:
        return Handler.DEFAULT
    return Handler.IGNORED if found == signal.SIG_IGN else Handler.USERS


def uninstall() -> None:
    """In a process made by os.fork(): restore Python's defaults, and forget what is pending.

    Both the handlers and the pending signals are the parent's.
    """
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
    """Set a handler, only if the present one is the default; remember that the library did so."""
    current = signal.getsignal(number)
    if current == default:
        _previous[number] = current
        signal.signal(number, handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT in a top process."""
    if signal_resend.counts(number):
        _interrupt(number, frame)


def _on_terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM in a top process and in a child."""
    if signal_resend.counts(number):
        _terminate(number, frame)


def _on_child_interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT in a child: does nothing.

    The grand master gets the terminal's Ctrl-C as well, and stops the tree.
    """


def _excepthook(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
    """Print no traceback of Ctrl-C, which is no error of the script; print all others as before."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)


# What the signals do


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Carry SIGINT out: stop the emitters if the script is over; otherwise raise KeyboardInterrupt."""
    if _may_act(number, frame, _interrupt) and not exits.interrupt(number, frame):
        raise signal_exceptions.marked(KeyboardInterrupt())


def _terminate(number: int, frame: FrameType | None) -> None:
    """Carry SIGTERM out: stop the emitters if the script is over; otherwise raise SystemExit.

    In a child it is ignored during a stop to which it adds nothing.
    """
    child = registry.child()
    if child is not None and child.takes_no_signal():
        signal_resend.pending.discard(number)
        return
    if not _may_act(number, frame, _terminate) or exits.interrupt(number, frame):
        return
    if child is None:
        raise signal_exceptions.marked(SystemExit(128 + number))
    # With a stop under way this is an end in order, status 0, even if the program itself has asked for the
    # stop. Without one, this child alone was sent the signal.
    raise signal_exceptions.terminated(0 if child.life.stopping.is_set() else 128 + number)


def _is_second(frame: FrameType | None) -> bool:
    """Whether the process is already about to end because of an earlier signal.

    It is not if the program has caught KeyboardInterrupt and goes on: then its next Ctrl-C is a first one
    again. In a child the answer is always False.
    """
    if not exits.was_interrupted() or registry.child() is not None:
        return False
    if registry.is_stopping() or signal_exceptions.is_at_work():
        return True
    return host.has_left_body(frame)  # it runs exit hooks, or waits for threads


def _end_now(number: int) -> None:
    """Carry the second signal out: KILL the children and end with the signal's own status."""
    registry.kill_children()
    exits.end_by(number)


# Signals that came at a bad moment


def _may_act(number: int, frame: FrameType | None, action: _Action) -> bool:
    """Whether a signal may take effect now; if not, ``action`` is called again later with a better frame.

    The second signal ends the process in here, whatever it has interrupted.
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
    """Have a pending signal tried again: after the send that it interrupted, and a moment later in any case.

    The resend comes also where the signal was deferred, because the send may just have looked at what was
    deferred for the last time.
    """
    send = deferring(frame)
    if send is not None:
        send.f_locals["self"].defer(_send_is_done, number, action)
    if registry.resend(number):
        return
    # No emitter is open: this is within a start(), or in the last steps of a stop. A thread of ``threading``
    # would need a lock that the interrupted code may hold.
    with contextlib.suppress(RuntimeError):
        start_new_thread(signal_resend.send_later, (number,))


def _send_is_done(number: int, action: _Action) -> None:
    """Carry out a signal that an interrupted send has deferred to its end.

    ``run_deferred`` calls this as the last step of that send. If code of the user follows, this raises what
    the action raises. If the call was deferred to a moment within other code of the library, it does nothing,
    and the signal comes again.
    """
    runner = sys._getframe(1)
    frame = runner.f_back
    if number not in signal_resend.pending or not is_deferring(frame):
        return  # within other code of the library: the signal comes again
    while frame is not None and host.is_ours(frame):
        if frame.f_code is runner.f_code:
            return  # that send was itself called by run_deferred
        frame = frame.f_back
    action(number, frame)
