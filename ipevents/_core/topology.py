"""What one process knows of the tree: its neighbours, their names, who is below it and wants which event.

Values in, values out. Not thread-safe: the caller holds its state lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import Enum

from .._exceptions import Forged, shown
from .interest import Change, Interest
from .messages import MAX_PATH, check_names, is_pids
from .netmap import Netmap

_MAX_PATHS = 4096  # paths kept for each link; more are worked out anew


class Up(Enum):
    """The way to the parent."""

    NONE = "there is no parent: this is the grand master"
    OPEN = "connected, or waiting for its first connection"
    AWAY = "the server is away"


class Neighbour:
    """What the router knows of one link."""

    __slots__ = ("is_parent", "online", "paths", "pid")

    def __init__(self, pid: str, *, is_parent: bool) -> None:
        self.pid = pid
        self.is_parent = is_parent
        self.online = is_parent  # a parent has no interest to wait for
        self.paths: dict[tuple[str, ...], tuple[str, ...]] = {}


_HERE = object()  # the source of our own listeners in Interest


class Topology:
    """The part of the tree that one process sees.

    Links are opaque hashable values; ``up`` tells the state of the link to the parent. ``version`` is the
    number from which it counts its changes: one that follows another goes on from there, so that nothing
    decided by the one before it passes for decided by this one.

    ``Router`` is a class on top of this one and does not hold one: what is decided for each message reads
    ``pid``, ``neighbours`` and ``version``, and a step between would cost time with each.
    """

    def __init__(self, pid: str, version: int = 0) -> None:
        self.pid = pid
        self.path: tuple[str, ...] = (pid,)  # of what starts here
        self.names = {pid}  # this process under all names it ever had
        self.parent: Hashable | None = None
        self.parent_names: set[str] = set()  # what we call this parent, and ever did
        self._parent_called: dict[str, str] = {}  # by what it calls itself
        self.up = Up.NONE
        self.netmap = Netmap()
        self.interest = Interest()
        self.neighbours: dict[Hashable, Neighbour] = {}
        self._links: dict[str, Hashable] = {}  # children by pid
        self.version = version  # counts changes of topology and interest: what was decided before may be old

    def changed(self) -> None:
        """Count a change of topology or interest: what was decided before may be old."""
        self.version += 1

    # This process and its neighbours

    def rename(self, pid: str) -> None:
        """This process has agreed on another pid; the old one is still understood."""
        self.pid = pid
        self.path = (pid,)
        self.names.add(pid)
        for neighbour in self.neighbours.values():
            neighbour.paths.clear()
        self.changed()

    def add_child(self, link: Hashable, pid: str) -> None:
        """A child was started, or a client connected; it is not online yet."""
        self.neighbours[link] = Neighbour(pid, is_parent=False)
        self._links[pid] = link
        self.netmap.add((pid,))
        self.changed()

    def remove_child(self, link: Hashable) -> tuple[list[tuple[str, ...]], Change]:
        """The child is gone.

        Returns the paths of all that were online there, deepest first, and the change.
        """
        neighbour = self.neighbours.pop(link, None)
        if neighbour is None:
            return [], Change()
        gone: list[tuple[str, ...]] = []
        if self._links.get(neighbour.pid) == link:  # else another link has the name, and what is below it
            del self._links[neighbour.pid]
            gone = self.netmap.remove((neighbour.pid,))
        change = self.interest.forget(link)
        self.changed()
        return gone, change

    def set_parent(self, link: Hashable, pid: str, up: Up) -> None:
        """The link upwards, its peer's name, and whether it carries."""
        self.parent = link
        self.up = up
        self.neighbours[link] = Neighbour(self._call_parent(pid) if pid else "", is_parent=True)
        self.changed()

    def remove_parent(self) -> None:
        """The link upwards is gone for good."""
        self.neighbours.pop(self.parent, None)
        self.parent = None
        self.up = Up.NONE
        self.changed()

    def forget_all(self) -> None:
        """This process has no neighbours any more: what still arrives by a link of before is not from one."""
        self.remove_parent()
        for link in list(self.neighbours):
            self.remove_child(link)

    def set_up(self, up: Up) -> None:
        self.up = up
        self.changed()

    def parent_renamed(self, pid: str) -> str:
        """The parent calls itself this now; what it was called before is still understood.

        Returns what we call it: the same, or another name where a child of ours has that one.
        """
        called = self._call_parent(pid)
        if self.parent is not None:
            self.neighbours[self.parent].pid = called
        self.changed()
        return called

    def parent_replaced(self, pid: str, called: str) -> None:
        """Another process is the parent from now on. It says it is ``pid``, and is ``called`` so here.

        Routes over the one before it are broken: that knew others by these names.
        """
        assert self.parent is not None
        neighbour = self.neighbours[self.parent]
        neighbour.paths.clear()
        self.parent_names.clear()
        self._parent_called.clear()
        if called != pid:
            self._parent_called[pid] = called
        neighbour.pid = self._call_parent(pid)
        self.changed()

    def _call_parent(self, pid: str) -> str:
        called = self._parent_called.setdefault(pid, f"{pid}-parent" if pid in self._links else pid)
        self.parent_names.add(called)
        if called != self.pid:
            self.names.discard(called)  # a name that we had once, and that is the parent's alone
        return called

    def is_taken(self, pid: str) -> bool:
        """Whether this process or a neighbour goes by this name, or did: nobody else may get it."""
        return pid in self.names or pid in self.parent_names or pid in self._links

    def parent_pid(self) -> str | None:
        """The parent's name while there is a connection to it, else None."""
        if self.parent is None or self.up is not Up.OPEN:
            return None
        return self.neighbours[self.parent].pid or None

    def child_links(self) -> list[Hashable]:
        return list(self._links.values())

    def child_link(self, pid: str) -> Hashable | None:
        return self._links.get(pid)

    def child_pids(self) -> list[str]:
        return list(self._links)

    # Who is below

    def online(self, link: Hashable, path: tuple[str, ...]) -> tuple[str, ...]:
        """``path[0]``, at or below the neighbour, said that it is online. Returns the path with us at its
        end.

        Raises Forged where the path cannot be.
        """
        neighbour = self._below(link)
        if not is_pids(path, MAX_PATH) or path[-1] != neighbour.pid or not self.netmap.knows(path[1:]):
            raise Forged(f"it announces a process that is not below it, by the path {shown(path)}")
        self.netmap.online(path)
        if len(path) == 1:
            neighbour.online = True
            self.changed()
        return (*path, self.pid)

    def offline(self, link: Hashable, path: tuple[str, ...], pid: str) -> tuple[str, ...]:
        """``path[0]`` noticed that its child ``pid`` is gone. Returns the path with us at its end.

        Raises Forged where the path cannot be.
        """
        neighbour = self._below(link)
        pids = self.accept(link, path)
        if not is_pids((pid,), 1):
            raise Forged(f"it says that {shown(pid)} is gone, which is no pid")
        self.netmap.remove((pid, *path))
        neighbour.paths.clear()
        return pids

    def accept(self, link: Hashable, path: tuple[str, ...]) -> tuple[str, ...]:
        """The path with this process at its end, after checking that it can be true.

        Raises Forged: the last hop is not the peer, or the origin is not known below it.
        """
        neighbour = self.neighbours[link]
        try:
            pids = neighbour.paths.get(path)
        except TypeError:  # not hashable, so no path
            pids = None
        if pids is not None:
            return pids
        if not is_pids(path, MAX_PATH):
            raise Forged(f"a record with {shown(path)} as its path")
        last = path[-1]
        if neighbour.is_parent:
            called = self._parent_called.get(last)
            if called is None:
                raise Forged(f"a record of the parent {neighbour.pid} that claims to come from {last!r}")
            last = called
        elif path[-1] != neighbour.pid:
            raise Forged(f"a record of {neighbour.pid} that claims to come from {path[-1]!r}")
        elif not self.netmap.knows(path):
            raise Forged(f"a record with the origin {path[0]!r}, which is not below {neighbour.pid}")
        pids = (*path[:-1], last, self.pid)
        if len(neighbour.paths) >= _MAX_PATHS:
            neighbour.paths.clear()
        neighbour.paths[path] = pids
        return pids

    def _below(self, link: Hashable) -> Neighbour:
        """The child at this link.

        Raises Forged where it is the parent, who has no say in what is below us.
        """
        neighbour = self.neighbours[link]
        if neighbour.is_parent:
            raise Forged("it says of itself what only a child says to its parent")
        return neighbour

    # Interest

    def own_interest(self, event: str, wanted: bool) -> Change:
        """Our own listeners to an event became some, or none."""
        return self.interest.add(_HERE, event) if wanted else self.interest.remove(_HERE, event)

    def own_interests(self, events: Iterable[str]) -> Change:
        return self.interest.replace(_HERE, events)

    def peer_interest(self, link: Hashable, event: str, wanted: bool) -> Change:
        """A child's subtree began or ceased to listen. Raises ProtocolError for what is no event's name."""
        self._below(link)
        check_names((event,))
        if wanted:
            change = self.interest.add(link, event)
        else:
            change = self.interest.remove(link, event)
        self.changed()
        return change

    def peer_interests(self, link: Hashable, events: tuple[str, ...]) -> Change:
        """All that a child's subtree listens to. Raises ProtocolError for what are no names of events."""
        self._below(link)
        check_names(events)
        change = self.interest.replace(link, events)
        self.changed()
        return change

    def more_peer_interests(self, link: Hashable, events: tuple[str, ...]) -> Change:
        """Further names of what a child's subtree listens to. Raises as ``peer_interests``."""
        self._below(link)
        change = self.interest.add_all(link, check_names(events))
        self.changed()
        return change

    def wants(self, link: Hashable, event: str) -> bool:
        """Whether an event has to go down this link: until it is online its interest is not known."""
        neighbour = self.neighbours[link]
        return not neighbour.online or self.interest.wants(link, event)
