"""What passes through this process: decided once, then put into the outboxes of the next links.

Everything here runs in the reader thread of the link that a message came by. The decision for messages of one
kind, path, event and rest of route is kept at that link until topology or interest change. What happens where
there is no room is in ``backpressure.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.bounded import size_of
from .._core.decisions import Decision
from .._core.messages import (
    ANSWER,
    LAST_EVENT,
    MAX_CAUSE,
    PAYLOADS,
    REPORT,
    REQUEST,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    SEND_TO,
    TO_CHILD,
    Envelope,
    Record,
    check_received,
    control,
)
from .._core.requests import BEYOND, BOTH, NEXT
from .._links.link import Link
from .._payload import forms
from .._platform.clock import monotonic
from .backpressure import too_large, wait_to_forward
from .controls import put_report
from .node_state import NodeState
from .outgoing import Outgoing
from .presence import Presence

REPEAT_SECONDS = 1.0  # from one report of a failure to the same origin to the next
_MAX_DECISIONS = 16_384  # reports of which the time is kept

STALE = Decision()  # for messages of a link that is gone


class Forwarder:
    """The way of messages through a node: ``decide`` says where they go, ``forward`` puts them there."""

    def __init__(self, node: NodeState, presence: Presence, outgoing: Outgoing) -> None:
        self._node = node
        self._presence = presence
        self._outgoing = outgoing
        self._reported: dict[tuple[str, str], float] = {}

    def decide(self, link: Link, record: Record, event: str) -> Decision:
        """Decide what happens to messages of one event in a record, and keep that at the link.

        A decision with a report is not kept: there can be any number of routes that lead nowhere.

        Takes the state lock.

        Returns STALE if the link is no neighbour any more. Raises ProtocolError.
        """
        kind, path, _, to, messages = record
        check_received(kind, event, to, messages)
        with self._node.lock:
            router = self._node.router
            if link not in router.neighbours:
                return STALE
            if link.decided != router.version:
                link.decisions.clear()
                link.decided = router.version
            decision = self._decided(link, kind, path, event, to)
            if decision.report is None:
                names = (*path, event) if to is None else (*path, event, to[0], *to[1])
                link.decisions.keep((kind, path, event, to), decision, size_of(names))
        return decision

    def _decided(self, link: Link, kind: int, path: tuple[str, ...], event: str, to: Any) -> Decision:
        """Return the decision for messages of this kind, path, event and rest of route (``to``).

        Lock held.
        """
        router = self._node.router
        pids = router.accept(link, path)
        if to is not None:
            target, route = to
            next_link, report = router.hop(route)
            rest = (target, route[:-1]) if len(route) > 1 else None
            return Decision(pids, None, () if next_link is None else (next_link,), rest, report)
        reply = self._node.reply
        if kind in (SEND_TO, TO_CHILD, REQUEST, ANSWER, REQUEST_ANY):
            return Decision(pids, Envelope(kind, pids, event, reply, to=router.pid))
        plan = router.plan(kind, event, link)
        envelope = Envelope(kind, pids, event, reply) if plan.deliver else None
        return Decision(pids, envelope, plan.forward, None, plan.report, plan.lost_up)

    def forward(self, link: Link, record: Record, decision: Decision, size: int | None) -> str | None:
        """Pass messages on. They have ``size`` bytes in all; None if that has to be computed.

        Returns "" where they are in the books of the next links now, which tell what became of them. If they
        went to no link, the cause. None, having done nothing, where the record has several events and they
        need to be decided again. Takes the state lock, and releases it while it waits for room.
        """
        kind, path, event, to, messages = record
        node = self._node
        count = len(messages)
        is_request = kind > LAST_EVENT
        fail = node.asks.not_passed if is_request else self.report_back
        if size is None:
            size = sum(map(forms.size_of, messages))
        with node.lock:
            router = node.router
            if link not in router.neighbours:
                return "link-cut"
            if link.decided != router.version:  # it changed since the decision was made
                if type(event) is list:
                    return None
                decision = self._decided(link, kind, path, event, to)
            if kind == REQUEST_ALL:  # first: the asker has to know how many answers come
                node.asks.splits(link, record, len(decision.forward) + decision.lost_up)
            if decision.lost_up:
                self._presence.lose_up(count)
                router.parent.forwarded += count  # type: ignore[union-attr]
                server = node.router.neighbours[node.router.parent].pid
                fail(link, record, f"the server {server} is away", None)
            if decision.report is not None:
                fail(link, record, decision.report.cause, decision.report.target)
                return "undeliverable"
            passed = (kind, decision.pids, event, decision.to, messages)
            for target in decision.forward:
                if target not in router.neighbours:  # gone while this reader waited for another one's room
                    target.forwarded += count
                    target.drop("link-cut", count)
                    node.remember(target)
                    if is_request:
                        fail(link, record, f"{target.title} is gone", target.name)
                    continue
                if size > target.limit and target.is_limited and not self._fits(link, record, target, fail):
                    continue
                outbox = target.outbox
                fits = not outbox.dropping and outbox.has_room(size, count)
                fits = fits or wait_to_forward(node, link, target, size, count)
                target.forwarded += count
                if not fits:
                    if target not in router.neighbours:
                        node.remember(target)
                    if kind == SEND_TO or target is link or is_request:
                        fail(link, record, f"{target.title} takes nothing", target.name)
                    continue
                if is_request:
                    passes_on = decision.to is not None or kind == REQUEST_GRAND_MASTER
                    reach = BOTH if kind == REQUEST_ALL else BEYOND if passes_on else NEXT
                    going = node.asks.passes(link, target, event, messages, reach)
                    target.drop("refused", count - len(going))
                    if not going:
                        continue
                    passed = (kind, decision.pids, event, decision.to, going)
                outbox.put(passed, size)
                self._outgoing.mark_dirty(target)
            return "" if decision.forward or decision.lost_up else "filtered"

    def _fits(
        self, link: Link, record: Record, target: Link, fail: Callable[[Link, Record, str, str | None], None]
    ) -> bool:
        """Return whether the target takes messages as large as these; report them if it does not.

        Lock held.
        """
        largest = too_large(target, record[PAYLOADS])
        if not largest:
            return True
        target.forwarded += len(record[PAYLOADS])
        target.drop("too-large", len(record[PAYLOADS]))
        cause = f"{largest} bytes are more than {target.title} takes ({target.limit}, socket.maxMessage)"
        fail(link, record, cause, None)
        return False

    def report_back(self, link: Link, record: Record, cause: str, target: str | None) -> None:
        """Report to the origin that its messages were lost here, at most once a second for one cause.

        Lock held.
        """
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
        at = self._node.router.pid
        why = cause[:MAX_CAUSE]
        put_report(link, control(REPORT, route=path[:-1], event=event, at=at, target=target, cause=why))
