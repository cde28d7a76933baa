"""Routers joined into a tree: values in, values out, no thread. What is sent arrives at ``settle()``.

It does what a Node does with a Router, and no more: it puts records into links, in order, and counts
what is delivered.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from ipevents._core.interest import Change
from ipevents._core.messages import (
    INTEREST,
    INTERESTS,
    OFFLINE,
    ONLINE,
    REPORT,
    SEND_TO,
    TO_CHILD,
    check_received,
    make_record,
)
from ipevents._core.router import Router
from ipevents._core.topology import Topology, Up

Part = TypeVar("Part", bound=Topology)


def middle_of(part: Part, up: Up = Up.OPEN) -> Part:
    """A process with a parent and three children that are online: two that want "x", one that does not."""
    if up is not Up.NONE:
        part.set_parent("parent link", "parent", up)
    for pid in ("a", "b", "deaf"):
        part.add_child(pid + " link", pid)
        part.online(pid + " link", (pid,))
    part.peer_interests("a link", ("x",))
    part.peer_interests("b link", ("x", "y"))
    return part


class Process:
    """One router with what hangs on it. A link is named by its two ends, the own one first."""

    def __init__(self, pid: str, parent: Process | None) -> None:
        self.router = Router(pid)
        self.parent = parent
        self.children: list[Process] = []
        self.announced = parent is None
        self.listens: set[str] = set()
        self.heard: list[tuple[str, tuple[str, ...]]] = []  # event and pids
        self.reports: list[tuple[str, str | None]] = []  # event and target

    @property
    def pid(self) -> str:
        return self.router.pid

    def link(self, peer: Process) -> tuple[str, str]:
        return (self.pid, peer.pid)


class Fabric:
    """A tree that begins with a grand master called "0"."""

    def __init__(self) -> None:
        self.top = Process("0", None)
        self.processes = {"0": self.top}
        self.links: dict[tuple[str, str], deque[Any]] = {}
        self.sent = 0  # records put into links, control records included
        self._number = 0

    # The tree

    def begin(self, parent: Process) -> Process:
        """Start a child; it is not online yet."""
        self._number += 1
        child = Process(str(self._number), parent)
        parent.children.append(child)
        self.processes[child.pid] = child
        self.links[parent.link(child)] = deque()
        self.links[child.link(parent)] = deque()
        parent.router.add_child(parent.link(child), child.pid)
        child.router.set_parent(child.link(parent), parent.pid, Up.OPEN)
        return child

    def announce(self, process: Process) -> None:
        """The process says that it is online, after all its interest."""
        process.announced = True
        process.router.own_interests(process.listens)
        self._up(process, (INTERESTS, process.router.interest.all()))
        self._up(process, (ONLINE, (process.pid,)))

    def kill(self, process: Process) -> None:
        """The process and all below it are gone; its parent notices."""
        parent = process.parent
        assert parent is not None
        for item in self.below(process):
            del self.processes[item.pid]
            for link in [link for link in self.links if item.pid in link]:
                del self.links[link]
        parent.children.remove(process)
        gone, change = parent.router.remove_child(parent.link(process))
        self._advertise(parent, change)
        for path in gone:
            self._up(parent, (OFFLINE, (parent.pid,), path, None))

    def below(self, process: Process) -> list[Process]:
        """The process and its descendants."""
        return [process, *(item for child in process.children for item in self.below(child))]

    # What processes do

    def listen(self, process: Process, event: str, wanted: bool = True) -> None:
        if wanted:
            process.listens.add(event)
        else:
            process.listens.discard(event)
        if process.announced:
            self._advertise(process, process.router.own_interest(event, wanted))

    def send(self, process: Process, kind: int, event: str) -> None:
        """A message that goes by the rules."""
        plan = process.router.plan_here(kind, event)
        if plan.deliver:
            self._deliver(process, event, (process.pid,))
        for link in plan.forward:
            self._put(link, (kind, (process.pid,), event, None, [()]))

    def send_to(self, process: Process, route: tuple[str, ...], event: str) -> None:
        """A message along a route: the target first, the own pid at the end or not."""
        plan = process.router.plan_here(SEND_TO, event, route)
        if plan.report is not None:
            process.reports.append((event, plan.report.target))
            return
        self._put(plan.only, make_record(plan.header, plan.event, [()]))

    def settle(self) -> None:
        """Let everything arrive that is on its way."""
        while True:
            waiting = [link for link, records in self.links.items() if records]
            if not waiting:
                return
            for link in waiting:
                records = self.links.get(link)
                if records:
                    receiver = self.processes[link[1]]
                    self._receive(receiver, (link[1], link[0]), records.popleft())

    # What routers want done

    def _receive(self, process: Process, link: tuple[str, str], record: Any) -> None:
        kind, router = record[0], process.router
        if kind == INTEREST:
            self._advertise(process, router.peer_interest(link, record[1], record[2]))
        elif kind == INTERESTS:
            self._advertise(process, router.peer_interests(link, record[1]))
        elif kind == ONLINE:
            self._up(process, (ONLINE, router.online(link, record[1])))
        elif kind == OFFLINE:
            self._up(process, (OFFLINE, router.offline(link, record[1], record[2]), *record[2:]))
        elif kind == REPORT:
            self._report(process, *record[1:])
        else:
            self._pass(process, link, record)

    def _pass(self, process: Process, link: tuple[str, str], record: Any) -> None:
        kind, path, event, to, messages = record
        check_received(kind, event, to, messages)
        router = process.router
        pids = router.accept(link, path)
        if kind in (SEND_TO, TO_CHILD):
            if to is None:
                self._deliver(process, event, pids)
                return
            target, route = to
            next_link, report = router.hop(route)
            if report is not None:
                self._put(link, (REPORT, path[:-1], event, report.target))
                return
            rest = (target, route[:-1]) if len(route) > 1 else None
            self._put(next_link, (kind, pids, event, rest, messages))
            return
        plan = router.plan(kind, event, link)
        if plan.deliver:
            self._deliver(process, event, pids)
        for target_link in plan.forward:
            self._put(target_link, (kind, pids, event, None, messages))

    def _report(self, process: Process, route: tuple[str, ...], event: str, target: str) -> None:
        if not route:
            process.reports.append((event, target))
            return
        link, _ = process.router.hop(route)
        if link is not None:
            self._put(link, (REPORT, route[:-1], event, target))

    def _deliver(self, process: Process, event: str, pids: tuple[str, ...]) -> None:
        if event in process.listens:
            process.heard.append((event, pids))

    def _advertise(self, process: Process, change: Change) -> None:
        for event in change.advertise:
            self._up(process, (INTEREST, event, True))
        for event in change.withdraw:
            self._up(process, (INTEREST, event, False))

    def _up(self, process: Process, record: Any) -> None:
        if process.parent is not None:
            self._put(process.link(process.parent), record)

    def _put(self, link: Any, record: Any) -> None:
        self.sent += 1
        self.links[link].append(record)
