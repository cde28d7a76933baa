"""The blinker signals of events, with listeners in order. Imported with the first listener, not before.

Each operation on one listener takes the same time however many there are, because an event may have
thousands. blinker's tables are dicts: ``receivers`` holds what is connected in the order of connection, as
dicts do. ``_same`` finds what ``off`` looks for.

No lock, see dispatcher.py: another thread, a signal handler or a collected receiver may connect and
disconnect between any two lines here. After a thread has put an entry somewhere, it checks whether its place
was removed meanwhile. After a thread has removed a place, it checks whether an entry was put there meanwhile.
So at least one of the two notices the other.
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

# Types whose equal objects have the same hash for as long as they live.
_PLAIN = (FunctionType, MethodType, BuiltinFunctionType)


class EventSignal(Signal):
    """A signal that keeps the order of its receivers and reports when they change.

    ``on_changed`` is called in the thread that connects, disconnects, or collects a weak receiver; so it must
    not block.
    """

    def __init__(self, event: str, on_changed: Callable[[EventSignal], None]) -> None:
        self.event = event
        self.version = 0  # counts changes: a list of receivers made during one is not kept
        self._on_changed = on_changed
        self._muted = False
        super().__init__(f"The event {event!r}.")
        self._has_senders = False
        self._waits: set[Wait] = set()
        # Registrations by key_of() their listener; those of one listener in order, the newest last.
        self._same: dict[Hashable, dict[Registration, None]] = {}

    @property
    def is_muted(self) -> bool:
        """As in blinker: while it is true no receiver is called."""
        return self._muted

    @is_muted.setter
    def is_muted(self, muted: bool) -> None:
        if muted is not self._muted:
            self._muted = muted
            self._change()

    def connect(self, receiver: F, sender: Any = ANY, weak: bool = True) -> F:
        """As in blinker; the receiver is called as ``receiver(message, *args, **kwargs)``.

        ``sender`` is the pid of an origin. Raises InvalidListener as ``on`` does, and TypeError for a sender
        that is no pid, because no event would ever come from it.
        """
        is_ours = isinstance(receiver, Registration)
        if not is_ours:  # a Registration's listener was checked when it was made
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
        if receiver_id not in self.receivers:  # disconnected meanwhile, perhaps before all tables had it
            if isinstance(receiver, Registration):
                self._forget(receiver)
            self._leave_tables(receiver_id)
        self._change()
        return receiver

    def _disconnect(self, receiver_id: Any, sender_id: Any) -> None:
        """Take a receiver out of all tables, or only its connection to one of several senders."""
        if sender_id != ANY_ID:
            super()._disconnect(receiver_id, sender_id)
            if self._by_receiver.get(receiver_id):
                self._change()
                return
            # That was its last sender. blinker would keep the receiver, though no event reaches it any more.
        receiver = self.receivers.pop(receiver_id, None)  # first, see connect()
        if isinstance(receiver, Registration):
            self._forget(receiver)
        self._leave_tables(receiver_id)
        self._change()

    def _leave_tables(self, receiver_id: Any) -> None:
        """Take a receiver out of blinker's tables of senders; only its own senders are looked at, not all."""
        for sender_id in list(self._by_receiver.pop(receiver_id, ())):
            bucket = self._by_sender.get(sender_id)
            if bucket is not None:
                bucket.discard(receiver_id)

    def is_used(self) -> bool:
        """Whether a new signal of the same name would behave differently from this one."""
        return bool(self.receivers) or self._muted

    def in_order(self, origin: str) -> tuple[Receivers, bool]:
        """What to call for an event of ``origin``, in the order of registration.

        The second value is whether the same list holds for all origins and may be kept: it may if no receiver
        is weak and none wants a certain sender.
        """
        if self._muted:
            return (), True
        if not self._has_senders:
            items = list(self.receivers.values())  # a copy, because another thread may connect at this moment
            if not any(isinstance(item, ref) for item in items):
                return tuple([_callable(item) for item in items]), True
            return tuple([_callable(item) for item in map(_alive, items) if item is not None]), False
        wanted = {*self._by_sender.get(ANY_ID, ())} | {*self._by_sender.get(origin, ())}
        reached = [_alive(self.receivers.get(key)) for key in list(self.receivers) if key in wanted]
        return tuple([_callable(item) for item in reached if item is not None]), False

    # What users have connected

    def registrations(self) -> list[Callable[..., Any]]:
        """Everything that users have connected, in order; a Registration stands for its listener."""
        items = map(_alive, list(self.receivers.values()))
        return [item for item in items if item is not None and type(item) is not Wait]

    def count(self) -> int:
        """How many registrations of users there are, without making a list of them."""
        return max(0, len(self.receivers) - len(self._waits))

    def newest(self, listener: Listener) -> Callable[..., Any] | None:
        """The newest registration of a listener or of one equal to it; None if there is none."""
        registered = self._newest_registration(key_of(listener))
        direct = _alive(self.receivers.get(make_id(listener)))  # connected by the user to the signal itself
        if registered is None or direct is None:
            found: Callable[..., Any] | None = direct if registered is None else registered
        else:
            last = next(
                key for key in reversed(list(self.receivers)) if key in (id(registered), make_id(direct))
            )
            found = registered if last == id(registered) else direct
        if found is None and type(listener) not in _PLAIN:  # its hash may be missing or wrong
            items = reversed(self.registrations())
            found = next((item for item in items if listener_of(item) == listener), None)
        return found

    def _newest_registration(self, key: Hashable) -> Registration | None:
        """The newest registration under a key that is still connected; None if there is none."""
        same = self._same.get(key)
        while same:
            try:
                registration = next(reversed(same))
            except (RuntimeError, StopIteration):  # another thread changed it meanwhile: try again
                continue
            if id(registration) in self.receivers:
                return registration
            same.pop(registration, None)
        return None

    def _note(self, registration: Registration) -> None:
        """Put a registration where ``newest`` finds it.

        Repeated if another thread has removed the place meanwhile, see the top of this file.
        """
        if type(registration) is Wait:
            return
        while True:
            same = self._same.setdefault(registration.key, {})
            same[registration] = None
            if self._same.get(registration.key) is same:
                return

    def _forget(self, registration: Registration) -> None:
        """Remove a registration from where ``newest`` finds it, and its place if that is empty now.

        What another thread has put into the removed place meanwhile is put back.
        """
        if type(registration) is Wait:
            self._waits.discard(registration)
            return
        same = self._same.get(registration.key)
        if same is None:
            return
        same.pop(registration, None)
        if not same:
            dropped = self._same.pop(registration.key, None)
            for other in (*list(same), *list(dropped or ())):  # another thread has put it there meanwhile
                self._note(other)

    def _change(self) -> None:
        """Count a change and report it."""
        self.version += 1
        self._on_changed(self)


def _alive(item: Any) -> Any:
    """The receiver itself, of which blinker may hold a weak reference; None if it was collected."""
    return item() if isinstance(item, ref) else item


def _callable(item: Any) -> Callable[..., Any]:
    """What to call for a receiver: for a Registration that fires each time, the listener directly."""
    if isinstance(item, Registration) and not item.once:
        return item.listener
    return item  # type: ignore[no-any-return]  # blinker's own table is untyped here
