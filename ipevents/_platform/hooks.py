"""When the library hooks into its process: exit hooks, signal handlers, the hook for forks.

Emitters call these functions when they are made, opened and closed. Nothing is hooked in before the first
emitter is made.

No lock: ``_registered`` is read and set with no call in between, and the interpreter does not switch threads
there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import exits, host, os_signals, registry
from .latches import forget_main_bell
from .threads import forget_threads

if TYPE_CHECKING:
    from .registry import Child, Emitter

_registered = False


def register(emitter: Emitter) -> None:
    """Know an emitter from its making on.

    The first one also registers the hooks for forks and for the very end of the process.
    """
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_forked)
        exits.be_last()
    registry.know(emitter)


def opened(emitter: Emitter) -> None:
    """Note that an emitter has opened that is at the top of its tree.

    The first one also sets the signal handlers, and registers the hook that keeps the process alive after its
    script. In a child there are handlers already, and the hook stops these emitters.
    """
    if registry.oldest() is None:
        if registry.child() is not None:
            exits.stay()
        elif not os_signals.are_installed():
            host.find_body()
            exits.stay()
            os_signals.install()
    registry.opened(emitter)


def closed(emitter: Emitter) -> None:
    """Note that an emitter is about to be stopped, in a top process or in a child."""
    registry.closed(emitter)


def serve_child(child: Child) -> None:
    """Note that this process is a child and is connected to the process that started it."""
    registry.become_child(child)
    os_signals.install_in_child()


def _forked() -> None:
    """In a process made by os.fork(): let go of all that belongs to the parent.

    That is the open emitters, and with them handlers, hooks, threads and the bell of the main thread.
    """
    forget_main_bell()
    forget_threads()
    host.forget_body()
    exits.forget()
    registry.abandon_all()
    os_signals.uninstall()
