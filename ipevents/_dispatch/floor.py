"""The floor: the right to run listeners, which one thread of a process has at a time.

There is one for the whole process, however many emitters it has. If each emitter had its own, two listeners
that each emit at the other emitter would wait for each other's thread for ever. With a single one no such
circle is possible:

- It comes first in the order of locks. A thread takes it while it holds no other lock but
  ``Opening._starting``. While it has the floor it may take the state lock of any emitter, because a listener
  sends; never the other way round.
- The thread that has it waits for nothing that another thread could do only with the floor. In a listener, of
  whatever emitter, sends never wait (OutboxFull), waits and ``run`` are refused (WouldDeadlock), ``stop``
  only asks, and ``start`` does not wait for another thread's ``start``. All of these ask
  ``Dispatcher.runs_here`` or ``must_not_wait``.
- If the user's own code in a listener waits for something, the user must see to that: README, Limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from .._platform.latches import acquire_from_user


class Floor:
    """The lock and its state, see the module. ``Dispatcher.enter`` and ``leave`` take it and give it back."""

    __slots__ = ("depth", "gatherer", "left", "lock", "on_begin", "owed", "owner", "turns")

    def __init__(self) -> None:
        # Held while listeners run; re-entrant, because a listener may emit. Guards the fields below. Only
        # ``owner`` is read without it, by a thread that compares it with its own ident.
        self.lock = threading.RLock()
        self.depth = 0  # how often its owner has entered
        self.owner = 0  # ident of the thread that runs listeners now; 0 for none
        # The Dispatcher for which the reader thread has more messages of the same frame. What its listeners
        # send is gathered, and the reader writes it after the frame. Only compared with, never called.
        self.gatherer: object | None = None
        # ``Dispatcher.leave`` calls these when it has given the floor back: each writes what listeners of one
        # emitter have sent.
        self.owed: list[Callable[[], None]] = []
        # For who watches over listeners, see listener_watch.py.
        self.turns = 0  # how often it was taken
        self.left: Iterator[Any] = iter(())  # messages of the frame that is delivered; how many are left
        self.on_begin: Callable[[], None] | None = None  # called once, by the thread that takes it next

    def begins(self) -> None:
        """Call ``on_begin``, once. In the thread that has taken the floor."""
        on_begin = self.on_begin
        if on_begin is not None:
            on_begin()
            if self.on_begin is on_begin:  # or it was set anew meanwhile
                self.on_begin = None

    def take(self) -> None:
        """Take the lock, waiting while another thread runs listeners.

        Ctrl-C interrupts the wait, also if a listener never returns.
        """
        acquire_from_user(self.lock)

    def forget_owner(self) -> None:
        """In a process made by os.fork(): free the floor if another thread had it, which does not exist here.

        If the forking thread itself runs a listener, it goes on to have the floor.
        """
        if not self.lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition does
            self.lock = threading.RLock()
            self.depth = self.owner = 0
            self.gatherer = None
            self.owed = []
        self.on_begin = None  # it rings for a thread of the parent


process_floor = Floor()
