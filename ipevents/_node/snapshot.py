"""The counters of a node and its links at one moment, as plain dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.books import Counters, add, group_of, shown
from .._links.link import Link
from .node import Node


def snapshot(node: Node, restarts: int, waiting: Callable[[], int]) -> dict[str, Any]:
    """Return what ``Emitter.stats`` returns.

    ``restarts`` is how often children were started again; ``waiting()``, called with the state lock held, how
    many events wait for their next processes. The counters are read under that lock. So all of them are of
    one moment, but for what is being handled or written just then: one of them may have it already, and
    another one not yet. The dicts belong to the caller.
    """
    with node.lock:
        node.remember_retired()
        links = [link for link in node.router.neighbours if isinstance(link, Link)]
        total: Counters = dict(node.past)
        for link in links:
            add(total, link.counters())
        became = shown(total)["receivedAs"]
        outgoing = node.outgoing
        dropped = group_of(total, "endedHere")
        if outgoing.filtered:
            dropped["filtered"] = dropped.get("filtered", 0) + outgoing.filtered
        return {
            "pid": node.router.pid,
            "restarts": restarts,
            "sent": outgoing.sent,
            "copies": outgoing.sent + outgoing.more,
            "waiting": waiting(),
            "delivered": became["delivered"] + outgoing.delivered,
            "unheard": became["unheard"] + outgoing.unheard,
            "unreadable": became["unreadable"],
            "dropped": dropped,
            "undeliverable": node.incoming.controls.undeliverable,
            "refused": dict(node.refusals.counts),
            "faults": dict(node.errors.faults),
            "requests": node.asks.stats(),
            "links": {link.name: of_link(link) for link in links},
            "past": shown(node.past),
        }


def of_link(link: Link) -> dict[str, Any]:
    """Return the counters of one link. State lock held."""
    outbox = link.outbox
    return {
        **shown(link.counters()),
        "unacknowledged": link.unacknowledged,
        "queued": link.queued,
        "queuedBytes": outbox.size,
        "peak": max(outbox.peak, outbox.count),
    }
