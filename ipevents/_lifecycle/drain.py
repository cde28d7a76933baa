"""How the links of a process that stops end: written out, said goodbye to, closed, joined.

All of this runs in the supervisor's thread, when nothing new can come in any more. Every wait is for another
thread of the library or for the kernel, holds no lock meanwhile, and ends at a deadline.
"""

from __future__ import annotations

from .._core.messages import GOODBYE, control
from .._core.state import Event
from .._links.link import Link
from .._node.node import Node
from .._platform.latches import Latch
from .._platform.logs import Log
from .._platform.threads import Deadline

log = Log("ipevents.life")

GOODBYE_SECONDS = 0.5  # for the other end to read what was written
LAST_SECONDS = 0.1  # for the same, where nobody is left who reads


def flush(node: Node, deadline: Deadline) -> None:
    """Wait until the kernel has taken all that is queued, or until the deadline. Takes the state lock.

    To a client and to a server goodbye is said first, and they are waited for until they have handled all.
    Over TCP the kernel throws away what the other end has not read if something comes from there after our
    end. And what is not acknowledged counts as lost.

    Goodbye is said to all before any is waited for: one that does not read may use up the time. The other
    ends acknowledge at once then. Both waits of a link end with its connection, too. In the end what was
    handled meanwhile is acknowledged, with the frame in which a reader just is: its listener may have asked
    for this stop. One whose listener does not return is waited for no longer than GOODBYE_SECONDS.
    """
    with node.lock:
        links = _links(node)
        for link in links:
            link.acknowledge()
            if link.is_public and link.connection is not None:
                link.tell(control(GOODBYE))
        for link in links:
            link.flush(deadline)
        for link in links:
            if link.is_public:
                link.wait_acknowledged(deadline)
        handling = Deadline(min(GOODBYE_SECONDS, deadline.left() or 0.0))
        for link in links:
            link.wait_handled(handling)
            link.acknowledge()
            link.flush(deadline)


def run_notices(node: Node, deadline: Deadline) -> None:
    """Wait until the listeners of all notices queued so far have run, or until the deadline.

    They may still send.
    """
    notices = node.notices
    if notices is not None:
        told = Latch()
        notices.put(told.set)
        told.wait(deadline.left())


def end_notices(node: Node, deadline: Deadline) -> None:
    """Wait until the listeners of all notices have run, or until the deadline, and end the notices thread."""
    notices = node.notices
    if notices is not None:
        notices.end(deadline, lambda: node.dispatcher.floor.owner)


def say_goodbye(node: Node, deadline: Deadline) -> None:
    """Take nothing more from any neighbour, and wait until each has closed its end, or until the deadline.

    Then all links are ended. Takes the state lock, and not during the wait.
    """
    with node.lock:
        node.change(Event.GOODBYE)
        links = _links(node)
        for link in links:
            link.say_goodbye()
    for link in links:
        link.wait_closed(deadline)
    with node.lock:
        for link in links:
            link.end()


def end(node: Node, deadline: Deadline) -> None:
    """End all links without a goodbye, and wait for their threads, or until the deadline. After a fault."""
    with node.lock:
        for link in _links(node) + node.retired:
            link.end()
    join(node, deadline)


def join(node: Node, deadline: Deadline) -> None:
    """Wait for the readers and writers to end, or until the deadline; then count what no peer took."""
    with node.lock:
        retired, node.retired = node.retired, []
        links = _links(node) + retired
    stuck = []
    for link in links:
        if not link.join(deadline):
            stuck.append(link)
            why = ": a listener keeps it" if link.is_read_by(node.dispatcher.floor.owner) else ""
            log.warning("! the threads of %r do not end%s", link, why)
    with node.lock:
        for link in stuck:
            link.write_off()
        for link in retired:
            node.remember(link)
        for link in _links(node):  # the parent's, and those of clients whose reader was not done in time
            link.drop_waiting("closed")
            link.forget_session("closed")
            node.remember(link)
        node.lingering += stuck
        node.router.forget_all()


def _links(node: Node) -> list[Link]:
    """Return the links to all neighbours."""
    return [link for link in node.router.neighbours if isinstance(link, Link)]
