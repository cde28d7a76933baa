"""Room in the outboxes: who waits for it, who is refused, what is dropped.

The rules are those of ``Outbox.decide``; here they meet clock, lock and threads. A wait gives the state
lock up and ends with room, with the link, with ``stop()``, or after LOOK_SECONDS for another look.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core.outbox import STALLED_SECONDS, Patience, Verdict
from .._core.state import Stage
from .._exceptions import OutboxFull, SlowPeer
from .._links.link import Link
from .._platform.clock import monotonic
from .._platform.threads import library_threads

if TYPE_CHECKING:
    from .node import Node

LOOK_SECONDS = 1.0  # a wait for room looks so often whether the link still exists


def wait_for_room(node: Node, link: Link, size: int, count: int, patience: Patience, event: str = "") -> bool:
    """Lock held, given up while waiting: whether ``count`` messages may be put now.

    Fan-outs and forwards wait here while the peer makes progress; an addressed send waits for one
    change and returns False, to be decided anew. Raises OutboxFull for a listener, Closed by ``stop``.
    """
    while True:
        verdict = link.outbox.decide(size, patience, monotonic(), link.progress, count)
        if verdict is Verdict.TAKE:
            return True
        if verdict is Verdict.REFUSE:
            raise outbox_full(link, event)
        if verdict is Verdict.DROP:
            link.drop("slow-peer" if patience is Patience.FANOUT else "full", count)
            if patience is Patience.FANOUT and not link.outbox.dropping:
                link.outbox.begin_dropping()
                waiting = len(link.outbox)
                text = (
                    f"{link.title} has taken nothing for {STALLED_SECONDS:g} s while {waiting} records wait "
                    "for it; events to it are dropped until it takes some"
                )
                node.error(SlowPeer(text), child=link.child)
            return False
        link.wait_room(LOOK_SECONDS)
        if patience is Patience.APPLICATION:
            return False
        if node.stage is Stage.CLOSED:
            raise node.stage_error()
        if link not in node.router.neighbours:
            link.drop("link-cut", count)
            return False


def wait_to_copy(node: Node, links: Callable[[], tuple[Any, ...]], size: int) -> None:
    """Before large buffers are copied: wait for room, so that a sender keeps one copy and not one more.

    Nothing is reserved, the rules decide afterwards; so this gives up after a second without progress.
    Code in a listener does not wait.
    """
    if node.dispatcher.runs_here() or get_ident() in library_threads:
        return
    with node.lock:
        while node.stage is Stage.OPEN:
            full = [link for link in links() if not link.outbox.has_room_for_large(size)]
            if not full or monotonic() - full[0].progress >= LOOK_SECONDS:
                return
            full[0].wait_room(LOOK_SECONDS)


def outbox_full(link: Link, event: str) -> OutboxFull:
    """What code in a listener gets, which never waits."""
    waiting = len(link.outbox)
    return OutboxFull(
        f"event {event!r} was not sent: {waiting} records wait for {link.title}, and a listener never waits; "
        "send less at once, or from a thread"
    )
