"""What arrives over a link: delivered to listeners, passed on, reported, or noted.

Everything here runs in the reader thread of a link. What is to be done with messages of one kind, path,
event and rest of route is decided once and kept until topology or interest change. A reader waits for
room in another link only with the dispatcher left, and never for the link that it reads from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .._core.actions import Decision
from .._core.flow import Sender
from .._core.messages import (
    EVENT,
    PAYLOADS,
    REPORT,
    SEND_TO,
    TO_CHILD,
    Envelope,
    Message,
    Payload,
    Record,
    check_received,
    runs,
)
from .._exceptions import (
    Closed,
    IPEventsError,
    ProtocolError,
    UnreadablePayload,
)
from . import payload as payloads
from .clock import monotonic
from .controls import Controls, put_report
from .dispatch import Listener
from .guards import told
from .link import Link
from .reading import LOST
from .room import wait_for_room
from .threads import Latch

if TYPE_CHECKING:
    from .node import Node


REPEAT_SECONDS = 1.0  # the same failure is told to an origin at most so often
_BATCH = 64  # messages between two looks at the clock in a long frame
_MAX_DECISIONS = 16_384  # kept for a link; names of events can be many
_MAX_HELD_BYTES = 64 << 20  # what waits for our own online, as much as an outbox holds
_MAX_HELD = 100_000
_NO_KWARGS: dict[str, Any] = {}


_STALE = Decision()  # of a link that is gone


class Incoming:
    """The receiving side of a node."""

    def __init__(self, node: Node, on_control: Callable[[Link, Record], None]) -> None:
        self._node = node
        self.holding = False  # what comes from the parent for us waits for our online
        self.held_count = 0
        self._held: list[tuple[Link, Decision, Payload]] = []
        self._held_bytes = 0
        self._is_dropped = False  # our online is never said, nothing is kept any more; state lock
        self._online_said = Latch()  # not an Event, whose lock a signal handler may find held by itself
        self.released = Latch()  # what was held has been delivered, or nothing more comes from the parent
        self._reported: dict[tuple[str, str], float] = {}
        self.delivered = 0
        self.unheard = 0  # messages for us that nobody listened to
        self.counters: dict[str, int] = {}  # rare things by cause
        self.refused: dict[str, int] = {}  # handshakes by cause
        self._controls = Controls(node, on_control)

    def receive(self, link: Link, records: list[Record], size: int) -> None:
        """Handle the records of one frame of ``size`` bytes. Raises ProtocolError for what makes no sense."""
        node = self._node
        alone = len(records) == 1
        exact = size if alone else None  # of a record; None: to be worked out where it is needed
        try:
            if size == LOST:
                self._lose(link, records[0])
                return
            for record in records:
                if record[0] > SEND_TO:
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
                    decision = self._decide(link, record, event)
                if decision.goes_on:
                    self._forward(link, record, decision, exact)
                if decision.envelope is None:
                    if decision is _STALE:
                        self._drop_stale(link, messages)
                    continue
                if self.holding and link is node.router.parent:
                    self._hold(link, {event: decision}, repeat(event), messages)
                else:
                    self._deliver(link, decision, messages, gathers=not alone)
        except Closed:  # stop() ended a wait for room; this link ends as well
            return
        except IPEventsError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as exc:
            # Listeners do not raise up to here: the record is to blame.
            raise ProtocolError(f"a record that no process of ours makes: {told(exc, 200)}") from exc
        finally:
            if node.outgoing.dirty:
                node.outgoing.write_dirty()
        if node.deferred:
            node.run_deferred()

    def _receive_several(self, link: Link, record: Record, size: int | None) -> None:
        """Handle a message record of several events."""
        kind, path, events, to, messages = record
        if type(kind) is not int or type(messages) is not list or len(events) != len(messages):
            raise ProtocolError("a record that has not a name for each message")
        names = dict.fromkeys(events)
        version = None
        while link.decided != version:  # all for the same topology, which may change in between
            version = link.decided
            kept = link.decisions if version == self._node.router.version else {}
            decisions = {
                event: kept.get((kind, path, event, to)) or self._decide(link, record, event)
                for event in names
            }
        if any(decision is _STALE for decision in decisions.values()):
            self._drop_stale(link, messages)
            return
        first = decisions[events[0]]
        alike = all(other.goes_like(first) for other in decisions.values())
        if not alike or (first.goes_on and not self._forward(link, record, first, size)):
            for part in runs(record):
                if decisions[part[EVENT]].goes_on:
                    self._forward(link, part, decisions[part[EVENT]], None)
        if first.envelope is None:  # whether there is one does not depend on the event
            return
        if self.holding and link is self._node.router.parent:
            self._hold(link, decisions, events, messages)
        else:
            self._deliver_several(link, decisions, events, messages)

    # Delivering

    def _deliver(self, link: Link, decision: Decision, messages: list[Payload], *, gathers: bool) -> None:
        """Call the listeners for messages of one event; ``gathers``: more of the same frame is to come."""
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
        """Call the listeners for messages of several events."""
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
                        dispatcher.call_all(receivers, Message(envelope, payload))
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
        """Between two messages, the dispatcher entered: this reader has run for long without blocking."""
        self._node.dispatcher.leave()
        self._node.outgoing.write_dirty()
        link.turn.breathe()
        self._node.dispatcher.enter(gathers=True)

    def _open(self, decision: Decision, receivers: tuple[Listener, ...], payload: Payload) -> None:
        """Call the listeners with a payload, unpickled if need be; the dispatcher is entered."""
        if not receivers:
            return
        envelope = decision.envelope
        assert envelope is not None
        try:
            args, kwargs = payloads.decode(payloads.own(payload) if decision.forward else payload)
        except (UnreadablePayload, MemoryError) as exc:
            self._unreadable(envelope.event, envelope.pids[0], exc)
            return
        self._node.dispatcher.call_with(receivers, Message(envelope, args, kwargs), kwargs)

    def _not_handled(self, link: Link, count: int) -> None:
        """Count messages that no listener is called for: there is none, one has ended the process, or the
        life of this link is over, see ``Dispatcher.turn_over``.
        """
        if self._node.dispatcher.ended or link.ended:
            self.count("stopped", count)
        else:
            self.unheard += count

    def _lose(self, link: Link, record: Record) -> None:
        """Do without the one event of a record for whose large buffers there is no memory."""
        kind, path, event, to, messages = record
        check_received(kind, event, to, messages)
        link.received += len(messages)
        with self._node.lock:
            if link in self._node.router.neighbours:
                origin = self._node.router.accept(link, path)[0]
                if to is not None:  # it was on its way to somebody else
                    self._report_back(link, record, f"no memory for it at {self._node.router.pid}", None)
            else:
                origin = path[0]
        self._unreadable(event, origin, MemoryError("its large buffers are left out"))

    def _unreadable(self, event: str, origin: str, exc: Exception) -> None:
        """An event that cannot be taken here is lost alone: counted and told."""
        self.count("unreadable")
        why = str(exc) if type(exc) is UnreadablePayload else f"there is no memory for it ({exc})"
        error = UnreadablePayload(f"event {event!r} from {origin}: {why}")
        error.__cause__ = exc.__cause__ or exc
        self._node.error(error)

    def count(self, cause: str, count: int = 1) -> None:
        """Count something rare, for stats()."""
        self.counters[cause] = self.counters.get(cause, 0) + count

    def count_refused(self, cause: str) -> None:
        """Count a handshake that came to nothing, for stats()."""
        self.refused[cause] = self.refused.get(cause, 0) + 1

    # Deciding and passing on

    def _decide(self, link: Link, record: Record, event: str) -> Decision:
        """What to do with those of one event in a record; kept at the link. Raises ProtocolError."""
        kind, path, _, to, messages = record
        check_received(kind, event, to, messages)
        with self._node.lock:
            router = self._node.router
            if link not in router.neighbours:
                return _STALE
            if link.decided != router.version or len(link.decisions) >= _MAX_DECISIONS:
                link.decisions.clear()
                link.decided = router.version
            decision = link.decisions[kind, path, event, to] = self._decided(link, kind, path, event, to)
        return decision

    def _drop_stale(self, link: Link, messages: list[Payload]) -> None:
        """Count what still came over a link that is gone."""
        with self._node.lock:
            link.drop("link-cut", len(messages))

    def _decided(self, link: Link, kind: int, path: tuple[str, ...], event: str, to: Any) -> Decision:
        """Lock held."""
        router = self._node.router
        pids = router.accept(link, path)
        if to is not None:
            target, route = to
            next_link, report = router.hop(route)
            rest = (target, route[:-1]) if len(route) > 1 else None
            return Decision(pids, None, () if next_link is None else (next_link,), rest, report)
        reply = self._node.reply
        if kind in (SEND_TO, TO_CHILD):
            return Decision(pids, Envelope(kind, pids, event, reply, to=router.pid))
        plan = router.plan(kind, event, link)
        envelope = Envelope(kind, pids, event, reply) if plan.deliver else None
        return Decision(pids, envelope, plan.forward, None, plan.report, plan.lost_up)

    def _forward(self, link: Link, record: Record, decision: Decision, size: int | None) -> bool:
        """Pass messages on; ``size`` bytes in all, None if that is to be worked out.

        Returns False, having done nothing, where messages of several events need to be decided again.
        """
        kind, path, event, to, messages = record
        node = self._node
        count = len(messages)
        if size is None:
            size = sum(map(payloads.size_of, messages))
        with node.lock:
            router = node.router
            if link not in router.neighbours:
                link.drop("link-cut", count)
                return True
            if link.decided != router.version:  # it changed since the decision was made
                if type(event) is list:
                    return False
                decision = self._decided(link, kind, path, event, to)
            if decision.lost_up:
                node.outgoing.lose_up(count)
                self._report_back(
                    link, record, f"the server {node.router.neighbours[node.router.parent].pid} is away", None
                )
            if decision.report is not None:
                link.drop("undeliverable", count)
                self._report_back(link, record, decision.report.cause, decision.report.target)
            passed = (kind, decision.pids, event, decision.to, messages)
            for target in decision.forward:
                if target not in router.neighbours:  # gone while this reader waited for another one's room
                    target.drop("link-cut", count)
                    continue
                if size > target.limit and target.is_limited and not self._fits(link, record, target):
                    continue
                outbox = target.outbox
                if outbox.dropping or not outbox.has_room(size, count):
                    sender = Sender.BACK if target is link else Sender.FANOUT
                    if not wait_for_room(node, target, size, count, sender):
                        if kind == SEND_TO or sender is Sender.BACK:
                            self._report_back(link, record, f"{target.title} takes nothing", target.name)
                        continue
                outbox.put(passed, size)
                target.forwarded += count
                node.outgoing.mark_dirty(target)
        return True

    def _fits(self, link: Link, record: Record, target: Link) -> bool:
        """Lock held: whether each message is within what the target takes; else they are reported."""
        largest = max(payloads.size_of(payload) for payload in record[PAYLOADS])
        if largest <= target.limit:
            return True
        target.drop("too-large", len(record[PAYLOADS]))
        cause = f"{largest} bytes are more than {target.title} takes ({target.limit}, socket.maxMessage)"
        self._report_back(link, record, cause, None)
        return False

    def _report_back(self, link: Link, record: Record, cause: str, target: str | None) -> None:
        """Lock held: tell the origin that its messages broke off here; at most once a second for a cause."""
        _, path, event, _, _ = record
        if type(event) is list:
            event = event[0]
        key = (path[0], cause)
        now = monotonic()
        if now - self._reported.get(key, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        if len(self._reported) > _MAX_DECISIONS:
            self._reported.clear()
        self._reported[key] = now
        put_report(link, (REPORT, path[:-1], event, self._node.router.pid, target, cause))

    # What waits for our own online

    def _hold(
        self, link: Link, decisions: Mapping[str, Decision], events: Iterable[str], messages: list[Payload]
    ) -> None:
        """In the parent link's reader: keep messages for us until ``online`` was said and answered."""
        if self._held_bytes >= _MAX_HELD_BYTES or len(self._held) >= _MAX_HELD:
            self._online_said.wait()  # or the end of a stop, which drops what is held
            if not self._is_dropped:
                self.release_held()
                for event, payload in zip(events, messages, strict=False):
                    self._deliver(link, decisions[event], [payload], gathers=True)
                return
        if self._is_dropped:
            with self._node.lock:
                link.drop("stopped", len(messages))
            return
        self._held += [
            (link, decisions[event], payload) for event, payload in zip(events, messages, strict=False)
        ]
        self._held_bytes += sum(map(payloads.size_of, messages))
        self.held_count = len(self._held)

    def release_held(self) -> None:
        """In the parent link's reader: deliver what waited."""
        with self._node.lock:
            self.holding = False
            held, self._held = self._held, []
            self._held_bytes = self.held_count = 0
        try:
            for link, decision, payload in held:
                self._deliver(link, decision, [payload], gathers=True)
        finally:
            self.released.set()

    def drop_held(self) -> None:
        """At the end of a stop: count what waited for an ``online`` that was never said, and what comes yet.

        Nothing of it is delivered from here on. A reader that waits with a full store goes on.
        """
        with self._node.lock:
            if self.holding:
                self._is_dropped = True
                if self._held:
                    self._held[0][0].drop("stopped", self.held_count)
                    self._held = []
                    self._held_bytes = self.held_count = 0
        self._online_said.set()

    def online_said(self) -> None:
        """The held may come: lets a reader that waits with a full store go on."""
        self._online_said.set()
