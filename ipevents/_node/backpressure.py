"""The flow rules (README, Flow): which sends wait for room in an outbox, are refused, or are dropped.

``Outbox.decide`` decides what happens at a full outbox. This file applies its decisions with clock, lock and
threads: to what starts in this process (``put``, ``put_for_next``) and to what is passed on
(``wait_to_forward``, ``wait_to_tell``). The rules:

1. An application thread's addressed send waits for room, and is planned again after each wait.
2. Code in a listener never waits: it gets OutboxFull, and nothing is sent to any link.
3. A fan-out, and a reader that forwards, waits while the peer makes progress; then it drops for that link.
4. A reader that forwards to the link it reads from never waits.
5. A reader that has an ``online`` or ``offline`` for the parent waits while the share of its neighbour is
   used up (shares.py). That is never dropped, so the wait lasts as long as the parent takes nothing.

A wait releases the state lock. It ends with room, with the link, with ``stop()``, or after LOOK_SECONDS for
another look.
"""

from __future__ import annotations

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
from .node_state import NodeState
from .planning import plan_message

if TYPE_CHECKING:
    from .._core.outbox import Outbox

    class Sends(Protocol):
        """The books of what starts here, raised right after an event was put, with no call in between.

        ``more`` is how many more copies there were than events sent.
        """

        sent: int
        more: int
        filtered: int

    class Restarting(Protocol):
        """What a send has to know of a child over all its restarts: the part of ChildState used here."""

        handle: Any
        pid: str
        name: str

        @property
        def link(self) -> Link: ...

        @property
        def alive(self) -> bool: ...

        @property
        def is_over(self) -> bool: ...

        @property
        def title(self) -> str: ...

        def next_outbox(self) -> Outbox: ...


LOOK_SECONDS = 1.0  # how long a wait for room sleeps before it checks whether the link still exists
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
    """Put a message into the outboxes of all links that it goes to. Lock held, released while waiting.

    Returns True if the caller should claim the links that have nobody attending to them. Returns False where
    it had to wait: then the writers of these links are prompted already. Raises MessageTooLarge before any
    link gets the message, OutboxFull for code in a listener, Closed after ``stop()``.
    """
    links = plan.forward
    if size > ANY_LIMIT:
        for link in links:  # all are asked before the first gets it
            check_size(link, plan.event, payload, size)
    if node.dispatcher.must_not_wait():
        _put_for_listener(node, sends, plan, payload, size)
        return True
    full: tuple[Link, ...] = ()
    is_counted = False
    for link in links:
        if not link.outbox.offer(plan, payload, size):
            full += (link,)
        elif is_counted:
            sends.more += 1
        else:
            sends.sent += 1
            is_counted = True
    if full and kind in _ADDRESSED:
        _put_addressed(node, sends, kind, plan.event, route, payload, size)
        return False
    if not is_counted:
        _count_without_copy(sends, plan)
    if full:
        for link in links:
            if not link.attended and link not in full:
                link.prompt()  # a link that had room does not wait for the others
        _put_slowly(node, sends, full, plan, payload, size)
        return False
    return True


def _count_without_copy(sends: Sends, plan: Plan) -> None:
    """Count an event that was sent, of which no link has got a copy yet."""
    filtered = not (plan.forward or plan.deliver or plan.lost_up)
    sends.sent += 1  # no call from here on
    sends.more -= 1
    sends.filtered += filtered


def _put_slowly(
    node: NodeState, sends: Sends, full: tuple[Link, ...], plan: Plan, payload: Payload, size: int
) -> None:
    """Put a fan-out into those outboxes that had no room at once, one after the other. Lock held.

    For an application thread, which waits.
    """
    for link in full:
        if link not in node.router.neighbours:  # gone while we waited for another one
            sends.more += 1
            link.drop("link-cut")
            node.remember(link)
        elif wait_for_room(node, link, size, 1, Patience.FANOUT, plan.event):
            link.outbox.put_message(plan.header, plan.event, payload, size)
            sends.more += 1
            if not link.attended:
                link.prompt()  # this link does not wait for room in the next one
        else:
            sends.more += 1  # and it was dropped


def _put_addressed(
    node: NodeState,
    sends: Sends,
    kind: int,
    event: str,
    route: tuple[str, ...] | None,
    payload: Payload,
    size: int,
) -> None:
    """Wait for room and put a message for one link, planned anew after each wait. Lock held.

    The plan is made anew because the target may be gone or elsewhere after a wait.
    """
    while True:
        plan = plan_message(node, kind, event, route)
        (link,) = plan.forward
        if wait_for_room(node, link, size, 1, Patience.APPLICATION, event):
            link.outbox.put_message(plan.header, event, payload, size)
            sends.sent += 1
            if not link.attended:
                link.prompt()
            return


def _put_for_listener(node: NodeState, sends: Sends, plan: Plan, payload: Payload, size: int) -> None:
    """Put a message that code in a listener sends: for all of the links or, where one is full, for none.

    Lock held.
    """
    for link in plan.forward:
        if not link.outbox.has_room(size):
            raise outbox_full(link, plan.event)
    is_counted = False
    for link in plan.forward:
        if not link.outbox.offer(plan, payload, size):
            # There is room, but messages to this slow peer are being dropped; that may end here.
            wait_for_room(node, link, size, 1, Patience.LISTENER, plan.event)
            link.outbox.put_message(plan.header, plan.event, payload, size)
        if is_counted:
            sends.more += 1
        else:
            sends.sent += 1
            is_counted = True
    if not is_counted:
        _count_without_copy(sends, plan)


def put_for_next(
    node: NodeState,
    sends: Sends,
    child: Restarting,
    event: str,
    payload: Payload,
    size: int,
    *,
    kind: int = TO_CHILD,
    made: Callable[[Link, bool], Payload] | None = None,
) -> bool:
    """Keep a message for the next process of a child, which is about to be started.

    Waits for room as any addressed send does. Returns False, and keeps nothing, where a process runs already;
    then the caller sends over the link. ``made(link, waits)`` returns what is put in place of the payload,
    just before that; ``waits`` says that what the last process wrote is still read. Takes the state lock.
    """
    with node.lock:
        while True:
            if node.stage is not Stage.OPEN:
                raise node.stage_error()
            if child.is_over:
                what = "event" if kind == TO_CHILD else "request"
                raise UnknownProcess(f"{what} {event!r} was not sent: {child.title} has ended")
            link = child.link
            if child.alive:
                return False
            check_size(link, event, payload, size)
            outbox = child.next_outbox()
            if outbox.has_room(size):
                if made is not None:
                    payload = made(link, outbox is not link.outbox)
                outbox.put_message(node.router.header(kind), event, payload, size)
                sends.sent += 1
                return True
            if node.dispatcher.must_not_wait():
                raise outbox_full(link, event)
            link.wait_room(LOOK_SECONDS)


# What is passed on


def wait_to_forward(node: NodeState, source: Link, target: Link, size: int, count: int) -> bool:
    """Wait for room in ``target``; return whether messages may be passed on to it.

    Lock held, released meanwhile.
    """
    return wait_for_room(node, target, size, count, Patience.BACK if target is source else Patience.FANOUT)


def wait_to_tell(node: NodeState, source: Link, may_tell: Callable[[], bool]) -> None:
    """Wait until the parent has taken enough of the news from ``source``, by rule 5.

    In the reader thread of ``source``; lock held, released meanwhile. Such news go upwards only, so the chain
    of these waits ends at the top, whose readers wait for nobody. A stop ends it, and then they are put.
    """
    while node.stage is Stage.OPEN and source in node.router.neighbours and not may_tell():
        parent: Any = node.router.parent
        parent.wait_room(LOOK_SECONDS)


def too_large(target: Link, messages: list[Payload]) -> int:
    """Return the bytes of the largest of these messages if the target does not take so many, 0 otherwise."""
    largest = max(map(size_of, messages))
    return largest if largest > target.limit else 0


# Both


def wait_for_room(
    node: NodeState, link: Link, size: int, count: int, patience: Patience, event: str = ""
) -> bool:
    """Wait for room by the rules above; return whether ``count`` messages may be put now.

    Lock held, released while waiting. A fan-out or a forward waits here as long as the peer makes progress.
    An addressed send waits for one change and gets False, so that it is planned anew. Raises OutboxFull for a
    listener, Closed after ``stop()``. What is dropped is counted at the link; the first drop of a fan-out in
    an episode is reported as SlowPeer.
    """
    while True:
        now = monotonic()
        # Between two connections of a session no peer is slow, until a stop begins.
        progress = now if link.is_interrupted and node.stage is Stage.OPEN else link.progress
        verdict = link.outbox.decide(size, patience, now, progress, count)
        if verdict is Verdict.TAKE:
            return True
        if verdict is Verdict.REFUSE:
            raise outbox_full(link, event)
        if verdict is Verdict.DROP:
            link.drop("slow-peer" if patience is Patience.FANOUT else "full", count)
            if patience is Patience.FANOUT and not link.outbox.dropping:
                link.outbox.begin_dropping()
                _tell_slow(node, link)
            return False
        link.wait_room(LOOK_SECONDS)
        if patience is Patience.APPLICATION:
            return False
        if node.stage is Stage.CLOSED:
            raise node.stage_error()
        if link not in node.router.neighbours:
            link.drop("link-cut", count)
            node.remember(link)
            return False


def wait_to_copy(node: NodeState, links: Callable[[], tuple[Any, ...]], size: int) -> None:
    """Wait for room before large buffers are copied.

    Otherwise each send that waits for room would hold a copy of its own all that time. Nothing is reserved:
    the rules above decide later. So this gives up after a second without progress. Code in a listener does
    not wait. Takes the state lock.
    """
    if node.dispatcher.must_not_wait():
        return
    with node.lock:
        while node.stage is Stage.OPEN:
            full = [link for link in links() if not link.outbox.has_room_for_large(size)]
            if not full or monotonic() - full[0].progress >= LOOK_SECONDS:
                return
            full[0].wait_room(LOOK_SECONDS)


# Errors


def check_size(link: Link, event: str, payload: Payload, size: int) -> None:
    """Refuse a message that is larger than the link takes. Raises MessageTooLarge."""
    if size <= link.limit:
        return
    if not link.is_limited and type(payload) is list:
        return  # between parent and child only what has to fit in one frame is limited
    raise MessageTooLarge(
        f"event {event!r} has {size} bytes, {link.title} takes at most {link.limit} (socket.maxMessage)"
    )


def outbox_full(link: Link, event: str) -> OutboxFull:
    """Return the error for code in a listener, which never waits."""
    waiting = len(link.outbox)
    return OutboxFull(
        f"event {event!r} was not sent: {waiting} records wait for {link.title}, and a listener never waits; "
        "send less at once, or from a thread"
    )


def _tell_slow(node: NodeState, link: Link) -> None:
    waiting = len(link.outbox)
    text = (
        f"{link.title} has taken nothing for {STALLED_SECONDS:g} s while {waiting} records wait for it; "
        "events to it are dropped until it takes some"
    )
    node.peer_error((SlowPeer, link.name), lambda more: SlowPeer(text + more), child=link.child)
