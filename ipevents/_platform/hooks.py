"""What the library hooks into its process, and when: exit hooks, signal handlers, the hook for forks.

The emitters call this, and nothing is hooked in before the first of them is made. No lock: ``_registered`` is
looked at and set with no call in between, where no other thread of an interpreter can run.
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
    """Know an emitter from its making on. The first time: hooks for forks and for the very end."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_forked)
        exits.be_last()
    registry.know(emitter)


def opened(emitter: Emitter) -> None:
    """A top process has opened this emitter. The first time: handlers, and the hook that keeps it alive."""
    if registry.oldest() is None and not os_signals.are_installed():
        host.find_body()
        exits.stay()
        os_signals.install()
    registry.opened(emitter)


def closed(emitter: Emitter) -> None:
    """This emitter is about to be stopped, in whatever process."""
    registry.closed(emitter)


def serve_child(child: Child) -> None:
    """This process is connected to the one that has started it."""
    registry.become_child(child)
    os_signals.install_in_child()


def _forked() -> None:
    """In a process made by os.fork(): open emitters belong to the parent, and so do handlers and hooks."""
    forget_main_bell()
    forget_threads()
    host.forget_body()
    exits.forget()
    registry.abandon_all()
    os_signals.uninstall()
