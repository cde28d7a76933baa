"""How the links of a process that stops end: written to their end, said goodbye to, closed, joined.

In the supervisor's thread, behind the last event that may come in. Every wait is for another thread of the
library or for the kernel, holds no lock meanwhile, and ends at a deadline.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._core.flow import count_messages
from .link import Link
from .logs import Log
from .node import Node
from .stage import Stage
from .threads import Deadline, Latch

log = Log("ipevents.life")


def flush(node: Node, deadline: Deadline) -> None:
    """Wait until the kernel has all that is queued, or the deadline. Takes the state lock."""
    with node.lock:
        for link in _links(node):
            link.flush(deadline)


def tell_notices(node: Node, deadline: Deadline) -> None:
    """Wait until the listeners of all that was noticed so far have run: they may still send."""
    notices = node.notices
    if notices is not None:
        told = Latch()
        notices.put(told.set)
        told.wait(deadline.left())


def say_goodbye(node: Node, deadline: Deadline) -> list[Link]:
    """Take nothing more from anybody, and wait until every neighbour has closed, or the deadline.

    Returns the links, which have ended by then; their readers may still be busy.
    """
    with node.lock:
        node.stage = Stage.CLOSED  # STOPPING -> CLOSED
        links = _links(node)
        for link in links:
            link.say_goodbye()
    for link in links:
        link.wait_closed(deadline)
    with node.lock:
        for link in links:
            link.end()
    return links


def join(node: Node, links: Iterable[Link], deadline: Deadline) -> None:
    """Wait for the ends of readers and writers, or the deadline; then count what the parent never took."""
    for link in links:
        if not link.join(deadline):
            log.warning("! the reader of %r does not end: a listener keeps it", link)
    with node.lock:
        parent = node.router.parent
        if isinstance(parent, Link):
            parent.drop("closed", count_messages(parent.outbox.clear()))
            node.remember(parent)
            node.router.remove_parent()


def _links(node: Node) -> list[Link]:
    return [link for link in node.router.neighbours if isinstance(link, Link)]
