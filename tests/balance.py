"""Whether the books of a process are right: each event is in exactly one place of them, see README, Books."""

from __future__ import annotations

from functools import wraps
from typing import Any

# Whether each copy that is put is counted, also where a signal handler raises just then. Before
# Python 3.11 it may do so between the two.
counts_all = True


def imbalances(stats: dict[str, Any], *, handles: bool = False) -> list[str]:
    """What is wrong with what ``stats()`` returned, in words.

    Nothing must be on its way within the process. ``handles``: but for what listeners are still called with.
    """
    past = {**stats["past"], "unacknowledged": 0, "queued": 0}
    books = [*stats["links"].items(), ("past", past)]
    wrong = []
    for name, link in books:
        if link["sent"] != link["acknowledged"] + link["unacknowledged"] + link["lost"]:
            wrong.append(f"{name}: sent is not acknowledged + unacknowledged + lost: {link}")
        if link["lost"] > sum(link["dropped"].values()):
            wrong.append(f"{name}: more was lost than was dropped: {link}")
        if link["received"] != sum(link["receivedAs"].values()) and not handles:
            wrong.append(f"{name}: received is not the sum of what became of it: {link}")
        if min(link["acknowledgedAs"].values()) < 0:
            wrong.append(f"{name}: more became of what is acknowledged than there was: {link}")
    meant = stats["copies"] + sum(link["forwarded"] for _, link in books)
    there = stats["waiting"] + sum(
        link["sent"] + link["queued"] + sum(link["dropped"].values()) - link["lost"] for _, link in books
    )
    if meant > there or (meant < there and counts_all):
        wrong.append(f"{meant} copies were meant for links, which know of {there}: {stats}")
    ended = sum(link["receivedAs"]["dropped"] for _, link in books)
    if not ended <= sum(stats["dropped"].values()) <= ended + stats["sent"]:
        wrong.append(f"{ended} ended here by the books of links, and other causes were counted: {stats}")
    return wrong


def watch(lifecycle: Any, tell: Any) -> None:
    """Have each emitter of this process checked at the end of its life.

    ``lifecycle`` is the class of the package. ``tell(words)`` is called for all that is wrong.
    """
    # Once only, in a process that a test run has started, and that runs tests itself.
    real = getattr(lifecycle.carry_out_stop, "__wrapped__", lifecycle.carry_out_stop)

    @wraps(real)
    def checked(self: Any, supervisor: Any, deadline: Any) -> None:
        real(self, supervisor, deadline)
        from ipevents._node.snapshot import snapshot

        stats = snapshot(self.node, 0, supervisor.children.waiting)
        for words in imbalances(stats, handles=bool(self.node.lingering)):
            tell(words)

    lifecycle.carry_out_stop = checked
