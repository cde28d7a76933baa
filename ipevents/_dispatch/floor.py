"""The right to run listeners: one thread of a process has it at a time, however many emitters there are.

One for the whole process, not one for each emitter: with two, a listener of each that emits at the other one
would wait for the other thread's for ever. With one there is nothing to wait for crosswise:

- It is the first lock in the order. It is taken with no other lock held but ``_starting`` of a Life, and may
  be followed by the state lock of any emitter (a listener sends), never the other way round.
- The thread that has it waits for nothing that another thread could do only with it: in a listener, of
  whatever emitter, sends never wait (OutboxFull), waits and ``run`` are refused (WouldDeadlock), ``stop``
  only asks, and ``start`` does not wait for another thread's ``start``. All ask ``Dispatcher.runs_here``.
- What the user's own code in a listener waits for is the user's business: README, Limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._platform.latches import acquire_from_user


class Floor:
    """See the module. Taken and left by ``Dispatcher.enter`` and ``leave``."""

    __slots__ = ("depth", "gatherer", "lock", "owed", "owner")

    def __init__(self) -> None:
        # Held while listeners run; re-entrant, because a listener may emit. Guards the fields below; only
        # ``owner`` is read without it, by threads that compare it with themselves.
        self.lock = threading.RLock()
        self.depth = 0  # how often its owner has entered
        self.owner = 0  # the thread that runs listeners now
        # The Dispatcher for which more of the same frame is to come: what its listeners send is gathered, and
        # written by the reader when the frame is done. Only ever compared.
        self.gatherer: object | None = None
        # Called by ``Dispatcher.leave`` when the last listener has run for now: each writes what listeners
        # of one emitter sent.
        self.owed: list[Callable[[], None]] = []

    def take(self) -> None:
        """Wait while another thread runs listeners; Ctrl-C is heard also where one never returns."""
        acquire_from_user(self.lock)

    def forget_owner(self) -> None:
        """In a process made by os.fork(): a thread that was running listeners is not in this process.

        The forking thread may run one itself; it goes on to hold what it holds.
        """
        if not self.lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition does
            self.lock = threading.RLock()
            self.depth = self.owner = 0
            self.gatherer = None
            self.owed = []


process_floor = Floor()
