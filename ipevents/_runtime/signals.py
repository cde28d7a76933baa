"""The blinker signals behind the events. Imported with the first listener, not before."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

from blinker import ANY, Signal
from blinker.base import ANY_ID

from .._exceptions import shown
from .dispatch import check_listener

F = TypeVar("F", bound=Callable[..., Any])
Receivers = tuple[Callable[..., Any], ...]


class Registration:
    """One call of ``on`` or ``once``: the same function registered twice is two of these."""

    __slots__ = ("__weakref__", "fired", "listener", "once", "signal")

    def __init__(self, signal: EventSignal, listener: Callable[..., Any], once: bool) -> None:
        self.signal = signal
        self.listener = listener
        self.once = once
        self.fired = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.once:
            if self.fired:
                return None
            self.fired = True
            self.signal.disconnect(self)
        return self.listener(*args, **kwargs)


class EventSignal(Signal):
    """A signal that keeps the order of its receivers and tells when they change.

    ``on_changed`` is called in whatever thread connects, disconnects, or collects a weak receiver; it
    must not block.
    """

    def __init__(self, event: str, on_changed: Callable[[EventSignal], None]) -> None:
        self.event = event
        self.version = 0  # counts changes, so that a list made meanwhile is not kept
        self._on_changed = on_changed
        self._muted = False
        super().__init__(f"The event {event!r}.")
        self._order: dict[Any, int] = {}
        self._next = itertools.count()
        self._has_senders = False

    @property
    def is_muted(self) -> bool:
        """As in blinker: whether receivers are not called for the time being."""
        return self._muted

    @is_muted.setter
    def is_muted(self, muted: bool) -> None:
        if muted is not self._muted:
            self._muted = muted
            self._change()

    def connect(self, receiver: F, sender: Any = ANY, weak: bool = True) -> F:
        """As in blinker; the receiver is called as ``receiver(message, *args, **kwargs)``.

        ``sender`` is the pid of an origin. Raises InvalidListener as ``on`` does; TypeError for another
        sender, which no event would ever have.
        """
        if type(receiver) is not Registration:  # else it was checked by who made it
            check_listener(receiver, "a receiver")
        if sender is not ANY and not isinstance(sender, str):
            raise TypeError(f"the sender of an event is a pid, a str, not {shown(sender)}")
        before = set(self.receivers)
        super().connect(receiver, sender, weak)
        for receiver_id in self.receivers.keys() - before:
            self._order[receiver_id] = next(self._next)
        if sender is not ANY:
            self._has_senders = True
        self._change()
        return receiver

    def _disconnect(self, receiver_id: Any, sender_id: Any) -> None:
        # As in blinker, but on a copy: another thread may connect with a new sender just now.
        if sender_id == ANY_ID:
            self._by_receiver.pop(receiver_id, None)
            for bucket in list(self._by_sender.values()):
                bucket.discard(receiver_id)
            self.receivers.pop(receiver_id, None)
        else:
            super()._disconnect(receiver_id, sender_id)
        if not self._by_receiver.get(receiver_id):
            # the last sender is gone: blinker keeps the receiver, which nothing reaches any more
            self._by_receiver.pop(receiver_id, None)
            self.receivers.pop(receiver_id, None)
            self._order.pop(receiver_id, None)
        self._change()

    def is_used(self) -> bool:
        """Whether it makes a difference that there is this signal, and not a new one of the same name."""
        return bool(self.receivers) or self._muted

    def in_order(self, origin: str) -> tuple[Receivers, bool]:
        """What to call for an event of ``origin``, in the order of registration.

        The second value tells whether the list may be kept for this origin and all others: no receiver
        is weak, none wants a certain sender.
        """
        if self._muted:
            return (), True
        pairs = list(self.receivers.items())  # a copy: another thread may connect just now
        if not self._has_senders and not any(isinstance(item, ref) for _, item in pairs):
            found = sorted(pairs, key=self._position)
            return tuple(_callable(item) for _, item in found), True
        keys = {_identity(item): key for key, item in self._strong()}
        found = sorted(
            ((keys.get(_identity(item)), item) for item in self.receivers_for(origin)), key=self._position
        )
        return tuple(_callable(item) for _, item in found), False

    def registrations(self) -> list[Callable[..., Any]]:
        """Everything connected, in order; a Registration stands for its listener."""
        return [item for _, item in sorted(self._strong(), key=self._position)]

    def _strong(self) -> list[tuple[Any, Callable[..., Any]]]:
        pairs = []
        for key, item in list(self.receivers.items()):
            alive = item() if isinstance(item, ref) else item
            if alive is not None:
                pairs.append((key, alive))
        return pairs

    def _position(self, pair: tuple[Any, Any]) -> int:
        return self._order.get(pair[0], sys.maxsize)  # being connected just now: it is the newest

    def _change(self) -> None:
        self.version += 1
        self._on_changed(self)


def _callable(item: Any) -> Callable[..., Any]:
    """A Registration that fires always can be left out of the call."""
    if type(item) is Registration and not item.once:
        return item.listener
    return item  # type: ignore[no-any-return]  # blinker's own table is untyped here


def _identity(receiver: Callable[..., Any]) -> tuple[int, int]:
    """What makes two references the same receiver: bound methods are made anew at each look."""
    method = getattr(receiver, "__func__", None)
    return (id(receiver), 0) if method is None else (id(method), id(getattr(receiver, "__self__", None)))
