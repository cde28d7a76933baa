"""The blinker signals behind the events. Imported with the first listener, not before.

What is done for one listener takes the same time however many there are, because an event may have thousands.
blinker's tables are dicts: ``receivers`` holds what is connected in the order in which it was, as dicts do.
What ``off`` looks for is found by ``_same``.

No lock, see dispatcher.py: another thread, a signal handler or a collected receiver may connect and
disconnect between any two lines here. A thread that puts something looks afterwards whether its place was
taken away meanwhile; a thread that takes a place away looks afterwards whether something was put there. So
one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeVar
from weakref import ref

from blinker import ANY, Signal
from blinker._utilities import make_id
from blinker.base import ANY_ID

from .._exceptions import shown
from .listeners import Listener, Receivers, Registration, Wait, check_listener, key_of, listener_of

F = TypeVar("F", bound=Callable[..., Any])

# Equal ones of these types have the same hash for as long as they live.
_PLAIN = (FunctionType, MethodType, BuiltinFunctionType)


class EventSignal(Signal):
    """A signal that keeps the order of its receivers and reports when they change.

    ``on_changed`` is called in whatever thread connects, disconnects, or collects a weak receiver; it
    must not block.
    """

    def __init__(self, event: str, on_changed: Callable[[EventSignal], None]) -> None:
        self.event = event
        self.version = 0  # counts changes, so that a list made meanwhile is not kept
        self._on_changed = on_changed
        self._muted = False
        super().__init__(f"The event {event!r}.")
        self._has_senders = False
        self._waits: set[Wait] = set()
        # Registrations by what finds their listener again; of one listener in order, the newest last.
        self._same: dict[Hashable, dict[Registration, None]] = {}

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
        is_ours = isinstance(receiver, Registration)
        if not is_ours:  # else it was checked by who made it
            check_listener(receiver, "a receiver")
        if sender is not ANY and not isinstance(sender, str):
            raise TypeError(f"the sender of an event is a pid, a str, not {shown(sender)}")
        if sender is not ANY:
            self._has_senders = True
        if isinstance(receiver, Wait):
            self._waits.add(receiver)
        super().connect(receiver, sender, weak)
        if isinstance(receiver, Registration):
            self._note(receiver)
        receiver_id = make_id(receiver)
        if receiver_id not in self.receivers:  # disconnected meanwhile, perhaps before it was in all tables
            if isinstance(receiver, Registration):
                self._forget(receiver)
            self._leave_tables(receiver_id)
        self._change()
        return receiver

    def _disconnect(self, receiver_id: Any, sender_id: Any) -> None:
        if sender_id != ANY_ID:
            super()._disconnect(receiver_id, sender_id)
            if self._by_receiver.get(receiver_id):
                self._change()
                return
            # The last sender is gone: blinker keeps the receiver, which nothing reaches any more.
        receiver = self.receivers.pop(receiver_id, None)  # first, see connect()
        if isinstance(receiver, Registration):
            self._forget(receiver)
        self._leave_tables(receiver_id)
        self._change()

    def _leave_tables(self, receiver_id: Any) -> None:
        """Out of blinker's tables, which hold identities only: those of the senders it has, not of all."""
        for sender_id in list(self._by_receiver.pop(receiver_id, ())):
            bucket = self._by_sender.get(sender_id)
            if bucket is not None:
                bucket.discard(receiver_id)

    def is_used(self) -> bool:
        """Whether it makes a difference that there is this signal, and not a new one of the same name."""
        return bool(self.receivers) or self._muted

    def in_order(self, origin: str) -> tuple[Receivers, bool]:
        """What to call for an event of ``origin``, in the order of registration.

        The second value is whether the list may be kept for this origin and all others: no receiver
        is weak, none wants a certain sender.
        """
        if self._muted:
            return (), True
        if not self._has_senders:
            items = list(self.receivers.values())  # a copy: another thread may connect just now
            if not any(isinstance(item, ref) for item in items):
                return tuple([_callable(item) for item in items]), True
            return tuple([_callable(item) for item in map(_alive, items) if item is not None]), False
        wanted = {*self._by_sender.get(ANY_ID, ())} | {*self._by_sender.get(origin, ())}
        reached = [_alive(self.receivers.get(key)) for key in list(self.receivers) if key in wanted]
        return tuple([_callable(item) for item in reached if item is not None]), False

    # What users have connected

    def registrations(self) -> list[Callable[..., Any]]:
        """Everything that users connected, in order; a Registration stands for its listener."""
        items = map(_alive, list(self.receivers.values()))
        return [item for item in items if item is not None and type(item) is not Wait]

    def count(self) -> int:
        """How many registrations there are, without making a list of them."""
        return max(0, len(self.receivers) - len(self._waits))

    def newest(self, listener: Listener) -> Callable[..., Any] | None:
        """The newest of the registrations of a listener, or of one that equals it; None if there is none."""
        registered = self._newest_registration(key_of(listener))
        direct = _alive(self.receivers.get(make_id(listener)))  # connected to the signal itself
        if registered is None or direct is None:
            found: Callable[..., Any] | None = direct if registered is None else registered
        else:
            last = next(
                key for key in reversed(list(self.receivers)) if key in (id(registered), make_id(direct))
            )
            found = registered if last == id(registered) else direct
        if found is None and type(listener) not in _PLAIN:  # its hash may be missing, wrong, or have changed
            items = reversed(self.registrations())
            found = next((item for item in items if listener_of(item) == listener), None)
        return found

    def _newest_registration(self, key: Hashable) -> Registration | None:
        same = self._same.get(key)
        while same:
            try:
                registration = next(reversed(same))
            except (RuntimeError, StopIteration):  # another thread changed it between the two calls: again
                continue
            if id(registration) in self.receivers:
                return registration
            same.pop(registration, None)
        return None

    def _note(self, registration: Registration) -> None:
        if type(registration) is Wait:
            return
        while True:
            same = self._same.setdefault(registration.key, {})
            same[registration] = None
            if self._same.get(registration.key) is same:
                return

    def _forget(self, registration: Registration) -> None:
        if type(registration) is Wait:
            self._waits.discard(registration)
            return
        same = self._same.get(registration.key)
        if same is None:
            return
        same.pop(registration, None)
        if not same:
            dropped = self._same.pop(registration.key, None)
            for other in (*list(same), *list(dropped or ())):  # put there by another thread just now
                self._note(other)

    def _change(self) -> None:
        self.version += 1
        self._on_changed(self)


def _alive(item: Any) -> Any:
    """A receiver, of which blinker may hold a weak reference; None where it is gone."""
    return item() if isinstance(item, ref) else item


def _callable(item: Any) -> Callable[..., Any]:
    """A Registration that fires always can be left out of the call."""
    if isinstance(item, Registration) and not item.once:
        return item.listener
    return item  # type: ignore[no-any-return]  # blinker's own table is untyped here
