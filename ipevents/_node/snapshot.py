"""The counters of a node and its links at one moment, as plain dicts."""

from __future__ import annotations

from typing import Any

from .._links.link import Link
from .node import Node
from .presence import past_of


def snapshot(node: Node, restarts: int) -> dict[str, Any]:
    """Return what ``Emitter.stats`` returns. ``restarts`` is how often children were started again.

    The counters are read under the state lock, so all of them are of one moment. The dicts belong to the
    caller.
    """
    with node.lock:
        incoming = node.incoming
        return {
            "pid": node.router.pid,
            "restarts": restarts,
            "sent": node.outgoing.sent,
            "delivered": incoming.delivered,
            "unheard": incoming.unheard,
            **incoming.counters,
            "refused": dict(incoming.refused),
            "links": {link.name: of_link(link) for link in node.router.neighbours if isinstance(link, Link)},
            "past": past_of(node),
        }


def of_link(link: Link) -> dict[str, Any]:
    """Return the counters of one link. State lock held."""
    outbox = link.outbox
    return {
        "sent": link.sent,
        "acknowledged": link.acknowledged,
        "received": link.received,
        "forwarded": link.forwarded,
        "delivered": link.delivered,
        "dropped": dict(link.dropped),
        "queued": outbox.queued,
        "queuedBytes": outbox.size,
        "peak": max(outbox.peak, outbox.count),
    }
