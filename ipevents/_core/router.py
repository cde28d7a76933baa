"""The routing rules: where one event goes from this process.

Pure values in, a Plan out. A decision depends on the kind of the message, its event, the link it came
by and the topology only, so it is kept until topology or interest change. Not thread-safe: the
caller holds its state lock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from .decisions import NOTHING, Plan, Report
from .messages import (
    BROADCAST,
    TO_CHILD,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
    TYPE_NAMES,
    Header,
)
from .topology import Topology, Up

_MAX_PLANS = 16_384  # kept for messages from here of one kind, and for those that pass; names can be many


class Row(NamedTuple):
    """What one process does with a message of one kind, by where the message comes from."""

    origin_up: bool
    origin_down: bool
    below_deliver: bool | None  # None: only at the very top
    below_up: bool
    below_down: bool
    above_deliver: bool | None  # None: such a message never comes from above
    above_down: bool


#                       from here       from a child          from the parent
#                       up     down     deliver up     down   deliver down
RULES: dict[int, Row] = {
    TO_PARENTS: Row(True, False, True, True, False, None, False),
    TO_CHILDS: Row(False, True, False, False, False, True, True),
    TO_SIBLINGS: Row(True, False, False, False, True, True, False),
    TO_GRAND_MASTER: Row(True, False, None, True, False, None, False),
    BROADCAST: Row(True, True, True, True, True, True, True),
}
# bubble is a local event and then TO_PARENTS; TO_CHILD and SEND_TO go by their route, see _follow().


class Router(Topology):
    """The part of the tree that one process sees, and what follows from it for each message."""

    def __init__(self, pid: str, version: int = 0) -> None:
        super().__init__(pid, version)
        # Kept decisions, all forgotten at each change: for messages from here by kind, and there by event,
        # or by route and event, ...
        self.here: dict[int, dict[Any, Plan]] = {kind: {} for kind in TYPE_NAMES}
        # ... and for those that arrive by kind, event and link.
        self._plans: dict[tuple[int, str, Hashable], Plan] = {}
        self._headers: dict[tuple[int, Any], Header] = {}  # the same object for as long as we have our name

    def changed(self) -> None:
        """Forget every kept decision: topology or interest is not what it was."""
        super().changed()
        self._plans.clear()
        for plans in self.here.values():
            plans.clear()

    def rename(self, pid: str) -> None:
        """This process has agreed on another pid; the old one is still understood."""
        self._headers.clear()
        super().rename(pid)

    def plan_here(self, kind: int, event: str, route: tuple[str, ...] | None = None) -> Plan:
        """Where a message goes that starts here.

        ``route`` is ``(pid,)`` or ``(link,)`` of the child for TO_CHILD, for SEND_TO the target first, and at
        the end a name of ours or not; None for the other kinds. A plan with a report is not kept.
        """
        here = self.here[kind]
        key = event if route is None else (route, event)
        plan = here.get(key)
        if plan is None:
            if len(here) >= _MAX_PLANS:
                here.clear()
            plan = self._decide(kind, event, None) if route is None else self._follow(kind, event, route)
            if plan.report is None:
                here[key] = plan
        return plan

    def plan(self, kind: int, event: str, link: Hashable) -> Plan:
        """Where a message without a route goes that came by this link."""
        key = (kind, event, link)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._decide(kind, event, link)
        return plan

    def header(self, kind: int, to: Any = None) -> Header:
        """What all records of this kind and route that start here begin with.

        The same object each time, by which an outbox tells what may travel in one record.
        """
        key = (kind, to)
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= _MAX_PLANS:
                self._headers.clear()
            header = self._headers[key] = (kind, self.path, to)
        return header

    def _follow(self, kind: int, event: str, route: tuple[str, ...]) -> Plan:
        """A message from here to a child, or along a route."""
        if kind == TO_CHILD:
            child: Hashable = route[0]
            link = self._links.get(child) if isinstance(child, str) else child
            known = link in self.neighbours
            report = None if known else Report(f"{self.pid} has no child with the pid {child!r}")
            to = None
        else:
            if route[-1] in self.names:
                route = route[:-1]
            link, report = self.hop(route)
            to = (route[0], route[:-1]) if len(route) > 1 else None
        if report is not None:
            return Plan(report=report)
        return Plan(forward=(link,), header=self.header(kind, to), event=event, only=link)

    def hop(self, route: tuple[str, ...]) -> tuple[Hashable | None, Report | None]:
        """The link towards ``route[-1]``, or why there is none."""
        pid = route[-1]
        if self.parent is not None and pid in self.parent_names:
            if self.up is Up.OPEN:
                return self.parent, None
            return None, Report(f"the server {pid} is away", pid, connected=False)
        link = self._links.get(pid)
        if link is None:
            return None, Report(f"{pid!r} is no parent or child of {self.pid}", pid)
        return link, None

    def _decide(self, kind: int, event: str, link: Hashable | None) -> Plan:
        row = RULES[kind]
        if link is None:
            deliver = kind == TO_GRAND_MASTER and self.up is Up.NONE
            up, down = row.origin_up, row.origin_down
        elif link == self.parent:
            if row.above_deliver is None:
                return NOTHING
            deliver, up, down = row.above_deliver, False, row.above_down
        else:
            top = self.up is Up.NONE
            deliver = top if row.below_deliver is None else row.below_deliver
            up, down = row.below_up, row.below_down
        forward: list[Hashable] = []
        report = None
        lost_up = False
        if up and self.up is Up.OPEN:
            assert self.parent is not None
            forward.append(self.parent)
        elif up and self.up is Up.AWAY:
            if kind == TO_GRAND_MASTER:
                report = Report(
                    f"the server {self.neighbours[self.parent].pid} is away", None, connected=False
                )
            else:
                lost_up = True
        if down:
            forward += [child for child in self._links.values() if child != link and self.wants(child, event)]
        if link is not None:
            return Plan(deliver, tuple(forward), report, lost_up)
        only = forward[0] if len(forward) == 1 and not (deliver or report or lost_up) else None
        return Plan(deliver, tuple(forward), report, lost_up, self.header(kind), event, only)
