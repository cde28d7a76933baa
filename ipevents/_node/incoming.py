"""What arrives over a link: delivered to listeners here, passed on, or handled as a control record.

Everything here runs in the reader thread of a link. A reader gives the floor back before it waits for room in
another link, and it never waits for room in the link that it reads from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from .._core.books import FORWARDED, UNHEARD, UNREADABLE
from .._core.decisions import Decision
from .._core.messages import (
    ANSWER,
    EVENT,
    KIND,
    LAST_EVENT,
    LAST_MESSAGE,
    PAYLOADS,
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
    ProtocolError,
    UnreadablePayload,
)
from .._links.link import Link
from .._payload import forms
from .._platform.guards import forget_values, told
from .._transport.frame_reader import LOST
from .controls import Controls
from .forwarder import STALE, Forwarder
from .held import Held
from .node_state import NodeState
from .outgoing import Outgoing
from .presence import Presence

_BATCH = 64  # messages between two looks at the clock in a long frame
_NO_KWARGS: dict[str, Any] = {}
_MALFORMED = (TypeError, ValueError, IndexError, KeyError, AttributeError)


class Incoming:
    """The receiving side of a node. ``receive`` gets each frame.

    What became of each event is in the books of the link that it came by, in exactly one place (books.py).
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
        self.controls = Controls(node, presence, self._parent_answered)

    def receive(self, link: Link, records: list[Record], size: int) -> None:
        """Handle the records of one frame of ``size`` bytes. Raises ProtocolError for a malformed record.

        LOST in place of ``size`` stands for a record whose large buffers did not fit into memory.
        """
        node = self._node
        alone = len(records) == 1
        exact = size if alone else None  # of a record; None: to be worked out where it is needed
        link.is_handling = True
        try:
            if link.resuming is not None and link.expects_resumed and records[0][KIND] != RESUMED:
                raise ProtocolError("it does not say where the session goes on")
            if size == LOST:
                self._lose(link, records.pop())
            for record in records:
                if record[KIND] > LAST_MESSAGE:
                    self.controls.take(link, record)
                    continue
                kind, path, event, to, messages = record
                link.received += len(messages)
                if kind > LAST_EVENT:
                    self._receive_request(link, record, exact)
                    continue
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
                cause: str | None = "link-cut" if decision is STALE else "filtered"
                if decision.goes_on:
                    cause = self._forwarder.forward(link, record, decision, exact)
                if decision.envelope is None:
                    self._passed(link, cause, len(messages))
                    continue
                if self.holding and link is node.router.parent:
                    self._hold(link, {event: decision}, repeat(event), messages)
                else:
                    self._deliver(link, decision, messages, gathers=not alone)
        except BaseException as exc:  # of any kind: what was received is accounted for
            is_stopped = isinstance(exc, Closed)  # stop() ended a wait for room; this link ends as well
            with node.lock:
                link.settle("stopped" if is_stopped else "malformed", self.held.count_of(link))
            if is_stopped:
                link.withhold()
                link.is_handling = False
                return
            if isinstance(exc, _MALFORMED):  # what listeners raise is caught further down
                raise ProtocolError(f"a record that no process of ours makes: {told(exc, 200)}") from exc
            raise
        finally:
            outgoing = self._outgoing
            if outgoing.dirty:
                outgoing.write_dirty()
        if size == LOST or (records and (records[0][KIND] <= LAST_MESSAGE or has_number(records))):
            link.handled_frame(size)
        link.is_handling = False
        if link.awaits_handling:
            link.tell_handled()
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
            link.end_here("link-cut", len(messages))
            return
        first = decisions[events[0]]
        passes = first.envelope is None  # which does not depend on the event
        cause: str | None = None
        if all(other.goes_like(first) for other in decisions.values()):
            cause = self._forwarder.forward(link, record, first, size) if first.goes_on else "filtered"
        if cause is None:
            for part in runs(record):
                decision = decisions[part[EVENT]]
                cause = (
                    self._forwarder.forward(link, part, decision, None) if decision.goes_on else "filtered"
                )
                if passes:
                    self._passed(link, cause, len(part[PAYLOADS]))
        elif passes:
            self._passed(link, cause, len(messages))
        if passes:
            return
        if self.holding and link is self._node.router.parent:
            self._hold(link, decisions, events, messages)
        else:
            self._deliver_several(link, decisions, events, messages)

    def _receive_request(self, link: Link, record: Record, size: int | None) -> None:
        """Handle a record of requests or of answers, in one part for each event."""
        kind, path, events, to, messages = record
        if type(kind) is not int or type(messages) is not list:
            raise ProtocolError("a record of requests that makes no sense")
        if type(events) is list:
            if len(events) != len(messages):
                raise ProtocolError("a record that has not a name for each message")
            size = None
        for part in runs(record) if type(events) is list else (record,):
            event, count = part[EVENT], len(part[PAYLOADS])
            decision = link.decisions.get((kind, path, event, to))
            if decision is None or link.decided != self._node.router.version:
                decision = self._forwarder.decide(link, part, event)
            cause: str | None = "link-cut" if decision is STALE else "filtered"
            if decision.goes_on:
                cause = self._forwarder.forward(link, part, decision, size)
            if decision.envelope is None:
                self._passed(link, cause, count)
            elif self.holding and link is self._node.router.parent and kind != ANSWER:
                self._hold(link, {event: decision}, repeat(event), part[PAYLOADS])
            else:
                self._node.asks.take(link, decision, part[PAYLOADS])

    def _passed(self, link: Link, cause: str | None, count: int) -> None:
        """Count messages that were for others only: forwarded, or dropped here for a cause."""
        if cause:
            link.end_here(cause, count)
        else:
            link.turn_out(FORWARDED, count)

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
        count = unheard = unreadable = 0
        dispatcher.enter(gathers=gathers or len(messages) > 1)
        try:
            dispatcher.floor.left = left = iter(messages)
            for payload in left:
                receivers = kept.get(event)
                if not receivers:
                    receivers = dispatcher.find(event, origin)
                    if dispatcher.ended or link.ended:
                        break
                    if not receivers:  # the last listener is gone
                        unheard += 1
                        continue
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
                elif not self._open(link, decision, receivers, payload):
                    unreadable += 1
                if not count % _BATCH and link.turn.is_long():
                    self._let_others_in(link)
                    dispatcher.floor.left = left  # another reader may have delivered
        finally:
            dispatcher.leave()
            link.delivered += count - unreadable
            if unheard:
                link.turn_out(UNHEARD, unheard)
        if count + unheard < len(messages):
            self._not_handled(link, len(messages) - count - unheard)

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
        count = unheard = unreadable = 0
        dispatcher.enter(gathers=True)
        try:
            dispatcher.floor.left = left = iter(messages)
            for event, payload in zip(events, left, strict=True):
                receivers = kept.get(event)
                if receivers is None:
                    receivers = dispatcher.find(event, origin)
                    if dispatcher.ended or link.ended:
                        break
                count += 1
                if not receivers:
                    unheard += 1
                elif type(payload) is tuple:
                    envelope: Any = decisions[event].envelope
                    dispatcher.call(receivers, Message(envelope, payload))
                elif not self._open(link, decisions[event], receivers, payload):
                    unreadable += 1
                if not count % _BATCH and link.turn.is_long():
                    self._let_others_in(link)
                    dispatcher.floor.left = left  # another reader may have delivered
        finally:
            dispatcher.leave()
            link.delivered += count - unheard - unreadable
            if unheard:
                link.turn_out(UNHEARD, unheard)
        if count < len(messages):
            self._not_handled(link, len(messages) - count)

    def _let_others_in(self, link: Link) -> None:
        """Give other threads the floor between two messages: this reader has run for long without blocking.

        The caller holds the floor, and holds it again afterwards.
        """
        self._node.dispatcher.leave()
        self._outgoing.write_dirty()
        link.turn.breathe()
        self._node.dispatcher.enter(gathers=True)

    def _open(
        self, link: Link, decision: Decision, receivers: tuple[Listener, ...], payload: Payload
    ) -> bool:
        """Decode a payload, and call the listeners with it. The caller holds the floor.

        Returns False, having called none, where it is unreadable; then it is counted.
        """
        envelope = decision.envelope
        assert envelope is not None
        try:
            args, kwargs = forms.decode(forms.own(payload) if decision.forward else payload)
        except (UnreadablePayload, MemoryError) as exc:
            self._unreadable(link, envelope.event, envelope.pids[0], exc)
            return False
        self._node.dispatcher.call(receivers, Message(envelope, args, kwargs), kwargs)
        return True

    def _not_handled(self, link: Link, count: int) -> None:
        """Count messages for which no listener is called.

        There is none, one has ended the process, or the life of this link is over (see
        ``Dispatcher.turn_over``).
        """
        if self._node.dispatcher.ended or link.ended:
            link.end_here("stopped", count)
        else:
            link.turn_out(UNHEARD, count)

    def _lose(self, link: Link, record: Record) -> None:
        """Drop the one event of a record whose large buffers found no memory. Report it here.

        It is reported to its origin as well if it was on its way to another process.
        """
        kind, path, event, to, messages = record
        check_received(kind, event, to, messages)
        link.received += len(messages)
        if kind > LAST_EVENT:
            self._node.asks.lose(link, record)
            return
        with self._node.lock:
            if link in self._node.router.neighbours:
                origin = self._node.router.accept(link, path)[0]
                if to is not None:  # it was on its way to another process
                    self._forwarder.report_back(
                        link, record, f"no memory for it at {self._node.router.pid}", None
                    )
            else:
                origin = path[0]
        self._unreadable(link, event, origin, MemoryError("its large buffers are left out"))

    def _unreadable(self, link: Link, event: str, origin: str, exc: Exception) -> None:
        """Count and report an event that cannot be decoded here.

        Only this event is lost, not the connection.
        """
        link.turn_out(UNREADABLE, 1)
        why = str(exc) if type(exc) is UnreadablePayload else f"there is no memory for it ({exc})"
        cause = exc.__cause__ or exc.with_traceback(None)
        forget_values(cause)  # it may wait for long, and the frames have the payload

        def make(more: str) -> UnreadablePayload:
            error = UnreadablePayload(f"event {event!r} from {origin}: {why}{more}")
            error.__cause__ = cause
            return error

        self._node.peer_error((UnreadablePayload, event, origin), make)

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
                    self._deliver_held(link, decisions[event], payload)
                return
        with self._node.lock:  # under which a stop drops what is held
            if not self.held.is_dropped:
                link.withhold()
                self.held.add(link, decisions, events, messages)
                return
        link.end_here("stopped", len(messages))

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
                self._deliver_held(link, decision, payload)
        finally:
            self.held.released.set()
            if messages:
                messages[0][0].release()

    def _deliver_held(self, link: Link, decision: Decision, payload: Payload) -> None:
        """Call the listeners for one message that was held, or have one request answered."""
        envelope = decision.envelope
        if envelope is not None and envelope.kind > LAST_EVENT:
            self._node.asks.take(link, decision, [payload])
        else:
            self._deliver(link, decision, [payload], gathers=True)

    def drop_held(self) -> None:
        """Count what waits for an ``online`` that was never announced as lost, and also what still comes.

        At the end of a stop. Nothing of it is delivered from here on. A reader that waits with a full store
        goes on.
        """
        with self._node.lock:
            if self.holding:
                self.held.drop()
        self.held.online_said.set()
