"""The routing rules: where one event goes from this process.

A message's kind, its event and the link that it came by go in, a ``Plan`` comes out. Nothing but these three
and the topology decides, so a plan is kept until topology or interest change. Pure and not thread-safe: the
caller holds its state lock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from .decisions import NOTHING, Plan, Report
from .messages import (
    BROADCAST,
    REQUEST,
    REQUEST_ALL,
    REQUEST_ANY,
    REQUEST_GRAND_MASTER,
    TO_CHILD,
    TO_CHILDS,
    TO_GRAND_MASTER,
    TO_PARENTS,
    TO_SIBLINGS,
    TYPE_NAMES,
    Header,
)
from .topology import Topology, Up

_MAX_PLANS = 16_384  # in each table of kept plans: a program may use any number of event names


class Row(NamedTuple):
    """What one process does with messages of one kind, by where they come from: here, below, or above.

    ``deliver``: it is for our listeners. ``up`` and ``down``: it goes on to the parent, to the children.
    """

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
    REQUEST_GRAND_MASTER: Row(True, False, None, True, False, None, False),
    REQUEST_ALL: Row(True, True, True, True, True, True, True),
}
# bubble is a local event and then TO_PARENTS. TO_CHILD, SEND_TO and REQUEST go by their route, see
# _follow(). A REQUEST_ANY goes from one process to a neighbour, which gives it on or answers it. An ANSWER
# goes back to whoever has brought the request.


class Router(Topology):
    """Decides where messages go from this process, by what it knows of the tree, and keeps what it decided.

    ``plan_here`` is for messages that start here, ``plan`` for those that arrive. ``accept`` checks the path
    of what arrives, and ``hop`` finds the next link of a route. A caller that keeps decisions of its own
    compares ``version``: while that is the same, they hold.
    """

    def __init__(self, pid: str, version: int = 0) -> None:
        super().__init__(pid, version)
        # Plan caches, cleared by changed(). here[kind][event or (route, event)]: messages that start here.
        self.here: dict[int, dict[Any, Plan]] = {kind: {} for kind in TYPE_NAMES}
        # _plans[kind, event, link]: messages that arrive.
        self._plans: dict[tuple[int, str, Hashable], Plan] = {}
        self._headers: dict[tuple[int, Any], Header] = {}  # see header(); cleared when our name changes

    def changed(self) -> None:
        """Forget every kept plan: topology or interest is not what it was."""
        super().changed()
        self._plans.clear()
        for plans in self.here.values():
            plans.clear()

    def rename(self, pid: str) -> None:
        """Take another pid, as ``Topology.rename`` does, and forget the headers, which name the old one."""
        self._headers.clear()
        super().rename(pid)

    def plan_here(self, kind: int, event: str, route: tuple[str, ...] | None = None) -> Plan:
        """Return where a message goes that starts here.

        ``route`` depends on the kind. TO_CHILD: ``(pid,)`` or ``(link,)`` of the child. SEND_TO: the target
        first and the next hop last; a name of ours may follow at the end. Other kinds: None.

        A plan with a report is not kept.
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
        """Return where a message without a route goes that came by this link."""
        key = (kind, event, link)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._decide(kind, event, link)
        return plan

    def header(self, kind: int, to: Any = None) -> Header:
        """Return the header of all records of this kind and rest of route (``to``) that start here.

        It is the same object each time until our name changes. By that object an outbox recognises messages
        that may travel in one record.
        """
        key = (kind, to)
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= _MAX_PLANS:
                self._headers.clear()
            header = self._headers[key] = (kind, self.path, to)
        return header

    def _follow(self, kind: int, event: str, route: tuple[str, ...]) -> Plan:
        """Return the plan for a message that goes from here to a child, or along a route."""
        if kind == TO_CHILD or (kind in (REQUEST, REQUEST_ANY) and not isinstance(route[0], str)):
            child: Hashable = route[0]
            link = self._links.get(child) if isinstance(child, str) else child
            report = None
            if link not in self.neighbours:
                report = Report(f"{self.pid} has no child with the pid {child!r}")
            elif link is self.parent and self.up is not Up.OPEN:
                report = self._away()
            to = None
        else:
            if route[-1] in self.names:
                route = route[:-1]
            link, report = self.hop(route)
            to = (route[0], route[:-1]) if len(route) > 1 else None
        if report is not None:
            return Plan(report=report)
        return Plan(forward=(link,), header=self.header(kind, to), event=event, only=link)

    def _away(self) -> Report:
        """Return the report of what can only go to the server, which is away."""
        return Report(f"the server {self.neighbours[self.parent].pid} is away", None, connected=False)

    def hop(self, route: tuple[str, ...]) -> tuple[Hashable | None, Report | None]:
        """Return the link to the next hop, ``route[-1]``, and None; or None and the report of why not."""
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
        """Return the plan for a message without a route that came by ``link``; None: it starts here."""
        row = RULES[kind]
        if link is None:
            deliver = kind in (TO_GRAND_MASTER, REQUEST_GRAND_MASTER) and self.up is Up.NONE
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
            if kind in (TO_GRAND_MASTER, REQUEST_GRAND_MASTER):
                report = self._away()
            else:
                lost_up = True
        if down:
            wants = self.answers if kind == REQUEST_ALL else self.wants
            forward += [child for child in self._links.values() if child != link and wants(child, event)]
        if link is not None:
            return Plan(deliver, tuple(forward), report, lost_up)
        only = forward[0] if len(forward) == 1 and not (deliver or report or lost_up) else None
        return Plan(deliver, tuple(forward), report, lost_up, self.header(kind), event, only)
