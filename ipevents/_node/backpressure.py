"""The flow rules (README, Flow): who waits for room in an outbox, who is refused, what is dropped.

What to do with a full outbox is decided by ``Outbox.decide``; here its rules meet clock, lock and threads,
for what starts in this process (``put``, ``put_for_next``) and for what is passed on (``wait_to_forward``):

1. An application thread's addressed send waits for room, and is planned again after each wait.
2. Code in a listener never waits: OutboxFull, and nothing is sent to anybody.
3. A fan-out, and a reader that forwards, waits while the peer makes progress; then it drops for that link.
4. A reader that forwards to the link it reads from never waits.

A wait releases the state lock and ends with room, with the link, with ``stop()``, or after LOOK_SECONDS for
another look.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .._core.decisions import Plan
from .._core.messages import SEND_TO, TO_CHILD, TO_GRAND_MASTER, Payload
from .._core.outbox import STALLED_SECONDS, Patience, Verdict
from .._core.state import Stage
from .._exceptions import MessageTooLarge, OutboxFull, SlowPeer, UnknownProcess
from .._links.link import Link
from .._payload.forms import size_of
from .._platform.clock import monotonic
from .._platform.threads import library_threads
from .node_state import NodeState
from .planning import plan_message

if TYPE_CHECKING:
    from .._core.outbox import Outbox

    class Sends(Protocol):
        """Where sends are counted: together with the step that puts the event, with no call in between."""

        sent: int

    class Restarting(Protocol):
        """A child over all its restarts, as far as a send has to know it."""

        handle: Any

        @property
        def link(self) -> Link: ...

        @property
        def alive(self) -> bool: ...

        @property
        def is_over(self) -> bool: ...

        @property
        def title(self) -> str: ...

        def next_outbox(self) -> Outbox: ...


LOOK_SECONDS = 1.0  # a wait for room looks so often whether the link still exists
ANY_LIMIT = 1024  # bytes that every socket.maxMessage allows
_ADDRESSED = {TO_GRAND_MASTER, TO_CHILD, SEND_TO}  # to one process; an application thread waits for its room


# What starts here


def put(
    node: NodeState,
    sends: Sends,
    kind: int,
    plan: Plan,
    route: tuple[str, ...] | None,
    payload: Payload,
    size: int,
) -> bool:
    """Lock held, released while waiting: a message for the outboxes of all links that it goes to.

    Returns whether the caller should claim these links; where it had to wait, their writers are prompted.
    """
    links = plan.forward
    if size > ANY_LIMIT:
        for link in links:  # all are asked before the first gets it
            check_size(link, plan.event, payload, size)
    if node.dispatcher.runs_here():
        _put_for_listener(node, sends, plan, payload, size)
        return True
    full: tuple[Link, ...] = ()
    is_counted = False
    for link in links:
        if not link.outbox.offer(plan, payload, size):
            full += (link,)
        elif not is_counted:
            sends.sent += 1
            is_counted = True
    if full and kind in _ADDRESSED:
        _put_addressed(node, sends, kind, plan.event, route, payload, size)
        return False
    if not is_counted:
        sends.sent += 1
    if full:
        for link in links:
            if not link.attended and link not in full:
                link.prompt()  # a link that had room does not wait for the others
        _put_slowly(node, full, plan, payload, size)
        return False
    return True


def _put_slowly(node: NodeState, full: tuple[Link, ...], plan: Plan, payload: Payload, size: int) -> None:
    """Lock held: a fan-out of an application thread for those of the links that had no room at once."""
    patience = Patience.LISTENER if get_ident() in library_threads else Patience.FANOUT
    for link in full:
        if link not in node.router.neighbours:  # gone while we waited for another one
            link.drop("link-cut")
        elif wait_for_room(node, link, size, 1, patience, plan.event):
            link.outbox.put_message(plan.header, plan.event, payload, size)
            if not link.attended:
                link.prompt()  # nor does this one wait for the next


def _put_addressed(
    node: NodeState,
    sends: Sends,
    kind: int,
    event: str,
    route: tuple[str, ...] | None,
    payload: Payload,
    size: int,
) -> None:
    """Lock held: a message of an application thread for one link; planned anew after each wait."""
    patience = Patience.LISTENER if get_ident() in library_threads else Patience.APPLICATION
    while True:
        plan = plan_message(node, kind, event, route)
        (link,) = plan.forward
        if wait_for_room(node, link, size, 1, patience, event):
            link.outbox.put_message(plan.header, event, payload, size)
            sends.sent += 1
            if not link.attended:
                link.prompt()
            return


def _put_for_listener(node: NodeState, sends: Sends, plan: Plan, payload: Payload, size: int) -> None:
    """Lock held: what code in a listener sends, for all of the links or, where one is full, for none."""
    for link in plan.forward:
        if not link.outbox.has_room(size):
            raise outbox_full(link, plan.event)
    is_counted = False
    for link in plan.forward:
        if not link.outbox.offer(plan, payload, size):
            # There is room; in the way is an episode of a slow peer, which perhaps ends here.
            wait_for_room(node, link, size, 1, Patience.LISTENER, plan.event)
            link.outbox.put_message(plan.header, plan.event, payload, size)
        if not is_counted:
            sends.sent += 1
            is_counted = True
    if not is_counted:
        sends.sent += 1


def put_for_next(
    node: NodeState, sends: Sends, child: Restarting, event: str, payload: Payload, size: int
) -> bool:
    """Keep a message for the process that is about to be started; waits for room as any addressed send.

    Returns False where a process runs, or did so just now.
    """
    with node.lock:
        while True:
            if node.stage is not Stage.OPEN:
                raise node.stage_error()
            if child.is_over:
                raise UnknownProcess(f"event {event!r} was not sent: {child.title} has ended")
            link = child.link
            if child.alive:
                return False
            check_size(link, event, payload, size)
            outbox = child.next_outbox()
            if outbox.has_room(size):
                outbox.put_message(node.router.header(TO_CHILD), event, payload, size)
                sends.sent += 1
                return True
            if node.dispatcher.runs_here() or get_ident() in library_threads:
                raise outbox_full(link, event)
            link.wait_room(LOOK_SECONDS)


# What is passed on


def wait_to_forward(node: NodeState, source: Link, target: Link, size: int, count: int) -> bool:
    """Lock held, released while waiting: whether messages may be passed on to a link that has no room."""
    return wait_for_room(node, target, size, count, Patience.BACK if target is source else Patience.FANOUT)


def too_large(target: Link, messages: list[Payload]) -> int:
    """The bytes of the largest of these messages, if that is more than the target takes, 0 otherwise."""
    largest = max(map(size_of, messages))
    return largest if largest > target.limit else 0


# Both


def wait_for_room(
    node: NodeState, link: Link, size: int, count: int, patience: Patience, event: str = ""
) -> bool:
    """Lock held, released while waiting: whether ``count`` messages may be put now.

    Fan-outs and forwards wait here while the peer makes progress; an addressed send waits for one
    change and returns False, to be planned anew. Raises OutboxFull for a listener, Closed by ``stop``.
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
                node.error(_slow_peer(link), child=link.child)
            return False
        link.wait_room(LOOK_SECONDS)
        if patience is Patience.APPLICATION:
            return False
        if node.stage is Stage.CLOSED:
            raise node.stage_error()
        if link not in node.router.neighbours:
            link.drop("link-cut", count)
            return False


def wait_to_copy(node: NodeState, links: Callable[[], tuple[Any, ...]], size: int) -> None:
    """Before large buffers are copied: wait for room, so that a patience keeps one copy and not one more.

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


# What is said about it


def check_size(link: Link, event: str, payload: Payload, size: int) -> None:
    """Refuse a message that is larger than what the link takes. Raises MessageTooLarge."""
    if size <= link.limit:
        return
    if not link.is_limited and type(payload) is list:
        return  # between relatives only what has to be in one frame is limited
    raise MessageTooLarge(
        f"event {event!r} has {size} bytes, {link.title} takes at most {link.limit} (socket.maxMessage)"
    )


def outbox_full(link: Link, event: str) -> OutboxFull:
    """The error for code in a listener, which never waits."""
    waiting = len(link.outbox)
    return OutboxFull(
        f"event {event!r} was not sent: {waiting} records wait for {link.title}, and a listener never waits; "
        "send less at once, or from a thread"
    )


def _slow_peer(link: Link) -> SlowPeer:
    waiting = len(link.outbox)
    return SlowPeer(
        f"{link.title} has taken nothing for {STALLED_SECONDS:g} s while {waiting} records wait for it; "
        "events to it are dropped until it takes some"
    )
