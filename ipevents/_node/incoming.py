"""What arrives over a link: delivered to listeners here, passed on, or handled as a control record.

Everything here runs in the reader thread of a link. A reader gives the floor back before it waits for room in
another link, and it never waits for room in the link that it reads from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from .._core.decisions import Decision
from .._core.messages import (
    EVENT,
    KIND,
    LAST_MESSAGE,
    RESUMED,
    Message,
    Payload,
    Record,
    check_received,
    has_number,
    runs,
)
from .._dispatch.listeners import Listener
from .._exceptions import (
    Closed,
    IPEventsError,
    ProtocolError,
    UnreadablePayload,
)
from .._links.link import Link
from .._payload import forms
from .._platform.guards import told
from .._transport.frame_reader import LOST
from .controls import Controls
from .forwarder import STALE, Forwarder
from .held import Held
from .node_state import NodeState
from .outgoing import Outgoing
from .presence import Presence

_BATCH = 64  # messages between two looks at the clock in a long frame
_NO_KWARGS: dict[str, Any] = {}


class Incoming:
    """The receiving side of a node.

    ``receive`` gets each frame; the counters here are part of ``stats()``.
    """

    def __init__(
        self,
        node: NodeState,
        presence: Presence,
        outgoing: Outgoing,
    ) -> None:
        self._node = node
        self._outgoing = outgoing
        self._forwarder = Forwarder(node, presence, outgoing)
        self.holding = False  # messages for us from the parent wait in ``held`` for our online
        self.held = Held()
        self.delivered = 0
        self.unheard = 0  # messages for us that nobody listened to
        self.counters: dict[str, int] = {}  # rare things by cause
        self.refused: dict[str, int] = {}  # handshakes by cause
        self._controls = Controls(node, presence, self._parent_answered, self.count)

    def receive(self, link: Link, records: list[Record], size: int) -> None:
        """Handle the records of one frame of ``size`` bytes. Raises ProtocolError for a malformed record.

        LOST in place of ``size`` stands for a record whose large buffers did not fit into memory.
        """
        node = self._node
        alone = len(records) == 1
        exact = size if alone else None  # of a record; None: to be worked out where it is needed
        try:
            if link.resuming is not None and link.expects_resumed and records[0][KIND] != RESUMED:
                raise ProtocolError("it does not say where the session goes on")
            if size == LOST:
                self._lose(link, records.pop())
            for record in records:
                if record[KIND] > LAST_MESSAGE:
                    self._controls.take(link, record)
                    continue
                kind, path, event, to, messages = record
                link.received += len(messages)
                if type(event) is list:
                    self._receive_several(link, record, exact)
                    continue
                decision = link.decisions.get((kind, path, event, to))
                if (
                    decision is None
                    or link.decided != node.router.version
                    or type(kind) is not int  # True and 1.0 are found as well
                    or type(messages) is not list
                ):
                    decision = self._forwarder.decide(link, record, event)
                if decision.goes_on:
                    self._forwarder.forward(link, record, decision, exact)
                if decision.envelope is None:
                    if decision is STALE:
                        self._drop_stale(link, messages)
                    continue
                if self.holding and link is node.router.parent:
                    self._hold(link, {event: decision}, repeat(event), messages)
                else:
                    self._deliver(link, decision, messages, gathers=not alone)
        except Closed:  # stop() ended a wait for room; this link ends as well
            link.withhold()
            return
        except IPEventsError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as exc:
            # What listeners raise is caught further down, so the record must be malformed.
            raise ProtocolError(f"a record that no process of ours makes: {told(exc, 200)}") from exc
        finally:
            outgoing = self._outgoing
            if outgoing.dirty:
                outgoing.write_dirty()
        if size == LOST or (records and (records[0][KIND] <= LAST_MESSAGE or has_number(records))):
            link.handled_frame(size)
        if node.deferred:
            node.lock.run_deferred()

    def _receive_several(self, link: Link, record: Record, size: int | None) -> None:
        """Handle a message record of several events.

        It is forwarded as a whole if all of its events go the same way, otherwise in one part for each event.
        """
        kind, path, events, to, messages = record
        if type(kind) is not int or type(messages) is not list or len(events) != len(messages):
            raise ProtocolError("a record that has not a name for each message")
        names = dict.fromkeys(events)
        version = None
        while link.decided != version:  # all for the same topology, which may change in between
            version = link.decided
            kept = link.decisions if version == self._node.router.version else {}
            decisions = {
                event: kept.get((kind, path, event, to)) or self._forwarder.decide(link, record, event)
                for event in names
            }
        if any(decision is STALE for decision in decisions.values()):
            self._drop_stale(link, messages)
            return
        first = decisions[events[0]]
        alike = all(other.goes_like(first) for other in decisions.values())
        if not alike or (first.goes_on and not self._forwarder.forward(link, record, first, size)):
            for part in runs(record):
                if decisions[part[EVENT]].goes_on:
                    self._forwarder.forward(link, part, decisions[part[EVENT]], None)
        if first.envelope is None:  # whether there is one does not depend on the event
            return
        if self.holding and link is self._node.router.parent:
            self._hold(link, decisions, events, messages)
        else:
            self._deliver_several(link, decisions, events, messages)

    # Delivering

    def _deliver(self, link: Link, decision: Decision, messages: list[Payload], *, gathers: bool) -> None:
        """Call the listeners for messages of one event.

        ``gathers`` says that more of the same frame is to come.
        """
        dispatcher = self._node.dispatcher
        kept = dispatcher.kept
        envelope = decision.envelope
        assert envelope is not None
        event, origin = envelope.event, envelope.pids[0]
        if link.ended or not (kept.get(event) or dispatcher.find(event, origin)):
            self._not_handled(link, len(messages))
            return
        count = 0
        dispatcher.enter(gathers=gathers or len(messages) > 1)
        try:
            for payload in messages:
                receivers = kept.get(event)
                if receivers is None:
                    receivers = dispatcher.find(event, origin)
                    if dispatcher.ended or link.ended:
                        self._not_handled(link, len(messages) - count)
                        break
                count += 1
                if type(payload) is tuple:
                    message = Message(envelope, payload)
                    for receiver in receivers:
                        try:
                            receiver(message, *payload)
                        except BaseException as exc:  # a user's code: it raises what it likes
                            dispatcher.failed(exc, message, receiver)
                            if dispatcher.ended:
                                break
                else:
                    self._open(decision, receivers, payload)
                if not count % _BATCH and link.turn.is_long():
                    self._let_others_in(link)
        finally:
            dispatcher.leave()
            link.delivered += count
            self.delivered += count

    def _deliver_several(
        self, link: Link, decisions: Mapping[str, Decision], events: Sequence[str], messages: list[Payload]
    ) -> None:
        """Call the listeners for messages of several events, in their order."""
        dispatcher = self._node.dispatcher
        kept = dispatcher.kept
        origin = decisions[events[0]].pids[0]
        if link.ended or not any(kept.get(event) or dispatcher.find(event, origin) for event in decisions):
            self._not_handled(link, len(messages))
            return
        count = heard = 0
        dispatcher.enter(gathers=True)
        try:
            for event, payload in zip(events, messages, strict=True):
                receivers = kept.get(event)
                if receivers is None:
                    receivers = dispatcher.find(event, origin)
                    if dispatcher.ended or link.ended:
                        self._not_handled(link, len(messages) - count)
                        break
                count += 1
                if receivers:
                    heard += 1
                    if type(payload) is tuple:
                        envelope: Any = decisions[event].envelope
                        dispatcher.call(receivers, Message(envelope, payload))
                    else:
                        self._open(decisions[event], receivers, payload)
                if not count % _BATCH and link.turn.is_long():
                    self._let_others_in(link)
        finally:
            dispatcher.leave()
            link.delivered += heard
            self.delivered += heard
            self.unheard += count - heard

    def _let_others_in(self, link: Link) -> None:
        """Give other threads the floor between two messages: this reader has run for long without blocking.

        The caller holds the floor, and holds it again afterwards.
        """
        self._node.dispatcher.leave()
        self._outgoing.write_dirty()
        link.turn.breathe()
        self._node.dispatcher.enter(gathers=True)

    def _open(self, decision: Decision, receivers: tuple[Listener, ...], payload: Payload) -> None:
        """Decode a payload, and call the listeners with it. The caller holds the floor."""
        if not receivers:
            return
        envelope = decision.envelope
        assert envelope is not None
        try:
            args, kwargs = forms.decode(forms.own(payload) if decision.forward else payload)
        except (UnreadablePayload, MemoryError) as exc:
            self._unreadable(envelope.event, envelope.pids[0], exc)
            return
        self._node.dispatcher.call(receivers, Message(envelope, args, kwargs), kwargs)

    def _not_handled(self, link: Link, count: int) -> None:
        """Count messages for which no listener is called.

        There is none, one has ended the process, or the life of this link is over (see
        ``Dispatcher.turn_over``).
        """
        if self._node.dispatcher.ended or link.ended:
            self.count("stopped", count)
        else:
            self.unheard += count

    def _drop_stale(self, link: Link, messages: list[Payload]) -> None:
        """Count messages that still came over a link that is gone."""
        with self._node.lock:
            link.drop("link-cut", len(messages))

    def _lose(self, link: Link, record: Record) -> None:
        """Drop the one event of a record whose large buffers found no memory. Report it here.

        It is reported to its origin as well if it was on its way to another process.
        """
        kind, path, event, to, messages = record
        check_received(kind, event, to, messages)
        link.received += len(messages)
        with self._node.lock:
            if link in self._node.router.neighbours:
                origin = self._node.router.accept(link, path)[0]
                if to is not None:  # it was on its way to another process
                    self._forwarder.report_back(
                        link, record, f"no memory for it at {self._node.router.pid}", None
                    )
            else:
                origin = path[0]
        self._unreadable(event, origin, MemoryError("its large buffers are left out"))

    def _unreadable(self, event: str, origin: str, exc: Exception) -> None:
        """Count and report an event that cannot be decoded here.

        Only this event is lost, not the connection.
        """
        self.count("unreadable")
        why = str(exc) if type(exc) is UnreadablePayload else f"there is no memory for it ({exc})"
        error = UnreadablePayload(f"event {event!r} from {origin}: {why}")
        error.__cause__ = exc.__cause__ or exc
        self._node.error(error)

    def count(self, cause: str, count: int = 1) -> None:
        """Count something rare, for ``stats()``."""
        self.counters[cause] = self.counters.get(cause, 0) + count

    def count_refused(self, cause: str) -> None:
        """Count a handshake that failed, by its cause, for ``stats()``."""
        self.refused[cause] = self.refused.get(cause, 0) + 1

    # Messages that wait for our own online

    def _hold(
        self, link: Link, decisions: Mapping[str, Decision], events: Iterable[str], messages: list[Payload]
    ) -> None:
        """Keep messages for this process until its ``online`` was announced and answered.

        In the parent link's reader.

        Where the store is full, the reader waits for the ``online`` and then delivers what was held and these
        messages.
        """
        if self.held.is_full():
            self.held.online_said.wait()  # or the end of a stop, which drops what is held
            if not self.held.is_dropped:
                self._release_held()
                for event, payload in zip(events, messages, strict=False):
                    self._deliver(link, decisions[event], [payload], gathers=True)
                return
        if self.held.is_dropped:
            with self._node.lock:
                link.drop("stopped", len(messages))
            return
        link.withhold()
        self.held.add(link, decisions, events, messages)

    def _parent_answered(self) -> None:
        """Deliver what was held: the parent has answered our ``online``. In the parent link's reader."""
        if self.holding:
            self._release_held()

    def _release_held(self) -> None:
        """Deliver what was held, and hold nothing any more. In the parent link's reader."""
        with self._node.lock:
            self.holding = False
            messages = self.held.take()
        try:
            for link, decision, payload in messages:
                self._deliver(link, decision, [payload], gathers=True)
        finally:
            self.held.released.set()
            if messages:
                with self._node.lock:
                    messages[0][0].release()

    def drop_held(self) -> None:
        """Count what waits for an ``online`` that was never announced as lost, and also what still comes.

        At the end of a stop. Nothing of it is delivered from here on. A reader that waits with a full store
        goes on.
        """
        with self._node.lock:
            if self.holding:
                self.held.drop()
        self.held.online_said.set()
