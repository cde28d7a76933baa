"""What one process knows of the tree: its neighbours, their names, who is below it and wants which event.

Every change that a peer or a child causes is a method here, which checks what the peer claims. ``Router``
decides by this where messages go. Pure and not thread-safe: the caller holds its state lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import Enum

from .._exceptions import Forged, ProtocolError, shown
from .answerers import Answerers, Sums
from .bounded import Bounded, size_of
from .interest import Change, Interest
from .messages import MAX_INTEREST, MAX_PATH, POOL_EVENT, check_names, is_pids
from .netmap import Netmap

_PATHS_BYTES = 2 << 20  # of accepted paths that are kept for each link
MAX_BELOW = 65_536  # processes below one neighbour
_MAX_PARENT_NAMES = 4096  # that one parent may give itself


class Up(Enum):
    """The way to the parent."""

    NONE = "there is no parent: this is the grand master"
    OPEN = "connected, or waiting for its first connection"
    AWAY = "the server is away"


class Neighbour:
    """The process at the other end of one link.

    ``pid`` is its name here. ``online`` is False for a child until its ``online`` comes. ``paths`` keeps what
    ``Topology.accept`` has accepted: the path as received, and the same with this process at its end.
    ``below`` counts the processes that are online below it.

    Of a quiet process no listener is told that it is online, or gone: it is a part of the library, such as a
    worker of a pool. Its parent knows that from the start; the processes above it are told by the parent.
    """

    __slots__ = (
        "below",
        "is_away",
        "is_flooded",
        "is_parent",
        "is_quiet",
        "next_quiet",
        "online",
        "paths",
        "pid",
    )

    def __init__(self, pid: str, *, is_parent: bool, is_quiet: bool = False) -> None:
        self.pid = pid
        self.is_parent = is_parent
        self.is_quiet = is_quiet
        self.next_quiet: tuple[str, ...] | None = None  # the next one below that is online has this path
        self.below = 0
        self.is_flooded = False  # that it wants too many events to be told apart was said
        self.is_away = False  # its connection was cut, and its session may go on
        self.online = is_parent  # a parent has no interest to wait for
        self.paths: Bounded[tuple[str, ...], tuple[str, ...]] = Bounded(_PATHS_BYTES)


_HERE = object()  # the source of our own listeners in Interest


class Topology:
    """The part of the tree that one process sees.

    A link is any hashable value here. ``up`` is the state of the way to the parent. ``version`` counts the
    changes, so a decision that was made at another version may be old. A topology that follows another one
    (``start()`` after ``stop()``) gets the number from which it counts on: so nothing that was decided by the
    former one seems valid.

    ``Router`` derives from this class instead of holding one: for each message ``pid``, ``neighbours`` and
    ``version`` are read, and a step through another object would make that slower.
    """

    def __init__(self, pid: str, version: int = 0) -> None:
        self.pid = pid
        self.path: tuple[str, ...] = (pid,)  # of messages that start here
        self.names = {pid}  # all names that this process ever had
        self.parent: Hashable | None = None
        self.parent_names: set[str] = set()  # all names that this parent ever had here
        self._parent_called: dict[str, str] = {}  # its name here, by the name that it gives itself
        self.up = Up.NONE
        self.netmap = Netmap()
        self.interest = Interest()
        self.answerers = Answerers()
        self.neighbours: dict[Hashable, Neighbour] = {}
        self._links: dict[str, Hashable] = {}  # children by pid
        self.version = version

    def changed(self) -> None:
        """Count a change of topology or interest. Each method that makes one calls this."""
        self.version += 1

    # This process and its neighbours

    def rename(self, pid: str) -> None:
        """Take another pid, on which the handshake with the server has agreed.

        The old name stays in ``names``, so routes that contain it still lead here.
        """
        self.pid = pid
        self.path = (pid,)
        self.names.add(pid)
        for neighbour in self.neighbours.values():
            neighbour.paths.clear()
        self.changed()

    def add_child(self, link: Hashable, pid: str, *, is_quiet: bool = False) -> None:
        """Add a child that was started, or a client that has connected. It is not online yet."""
        self.neighbours[link] = Neighbour(pid, is_parent=False, is_quiet=is_quiet)
        self._links[pid] = link
        self.netmap.add((pid,))
        self.changed()

    def remove_child(self, link: Hashable) -> tuple[list[tuple[str, ...]], Change]:
        """Remove a child and all that is known below it.

        Returns the paths of the processes that were online there, deepest first, and the change of interest.
        """
        neighbour = self.neighbours.pop(link, None)
        if neighbour is None:
            return [], Change()
        gone: list[tuple[str, ...]] = []
        if self._links.get(neighbour.pid) == link:  # a newer link may have taken over this name and subtree
            del self._links[neighbour.pid]
            gone = self.netmap.remove((neighbour.pid,))
        change = self.interest.forget(link)._replace(answers=self._told(self.answerers.forget(link)))
        self.changed()
        return gone, change

    def set_parent(self, link: Hashable, pid: str, up: Up) -> None:
        """Set the link to the parent, its name ("" while that is not known), and the state of the way."""
        self.parent = link
        self.up = up
        self.neighbours[link] = Neighbour(self._call_parent(pid) if pid else "", is_parent=True)
        self.changed()

    def remove_parent(self) -> None:
        """Forget the link to the parent for good."""
        self.neighbours.pop(self.parent, None)
        self.parent = None
        self.up = Up.NONE
        self.changed()

    def forget_all(self) -> None:
        """Remove all neighbours, so that what still arrives over their links is recognised as stale."""
        self.remove_parent()
        for link in list(self.neighbours):
            self.remove_child(link)

    def set_up(self, up: Up) -> None:
        """Note the state of the way to the parent."""
        self.up = up
        self.changed()

    def parent_renamed(self, pid: str) -> str:
        """Note that the parent calls itself ``pid`` now. Its earlier names are still understood.

        Returns its name here: the same, or another one if a child of ours has that name. Raises ProtocolError
        if it has had too many names.
        """
        if pid not in self._parent_called and len(self._parent_called) >= _MAX_PARENT_NAMES:
            raise ProtocolError(f"it has taken more than {_MAX_PARENT_NAMES} names")
        called = self._call_parent(pid)
        if self.parent is not None:
            self.neighbours[self.parent].pid = called
        self.changed()
        return called

    def parent_replaced(self, pid: str, called: str) -> None:
        """Note that another process is the parent now, which calls itself ``pid`` and is ``called`` so here.

        Routes that lead over its predecessor lead nowhere from now on. Their names were those that the
        predecessor used, and may mean other processes to this one.
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
        """Return the name here of a parent that calls itself ``pid``, the same each time, and note it."""
        called = self._parent_called.setdefault(pid, f"{pid}-parent" if pid in self._links else pid)
        self.parent_names.add(called)
        if called != self.pid:
            self.names.discard(called)  # one that we had once: it leads to the parent now
        return called

    def is_taken(self, pid: str) -> bool:
        """Return whether the name belongs to a neighbour, or did to this process or the present parent.

        Then no other process may get it.
        """
        return pid in self.names or pid in self.parent_names or pid in self._links

    def parent_pid(self) -> str | None:
        """Return the parent's name, or None while there is no connection to it."""
        if self.parent is None or self.up is not Up.OPEN:
            return None
        neighbour = self.neighbours[self.parent]
        return None if neighbour.is_away else neighbour.pid or None

    def child_links(self) -> list[Hashable]:
        """Return the links of all children and clients."""
        return list(self._links.values())

    def child_link(self, pid: str) -> Hashable | None:
        """Return the link of the child or client with this name, or None."""
        return self._links.get(pid)

    def child_pids(self) -> list[str]:
        """Return the names of all children and clients that are there, without quiet ones."""
        neighbours = [(pid, self.neighbours[link]) for pid, link in self._links.items()]
        return [pid for pid, neighbour in neighbours if not (neighbour.is_away or neighbour.is_quiet)]

    def is_online(self, link: Hashable) -> bool:
        """Return whether there is a neighbour at this link that has said ``online``."""
        neighbour = self.neighbours.get(link)
        return neighbour is not None and neighbour.online

    def set_away(self, link: Hashable, away: bool) -> list[tuple[str, ...]]:
        """Note that the connection to a neighbour was cut while its session may go on, or that it does.

        What is known of it stays, so routes lead there. Returns the paths of the processes that are online
        there, the neighbour first.
        """
        neighbour = self.neighbours[link]
        neighbour.is_away = away
        self.changed()  # who is away gets no request to any
        return [] if neighbour.is_parent else self.netmap.announced((neighbour.pid,))

    def announced(self) -> list[tuple[str, ...]]:
        """Return the paths of all processes below that are online, top down: what a new server is told.

        Not of those behind a cut: they are announced when their session goes on.
        """
        away = {neighbour.pid for neighbour in self.neighbours.values() if neighbour.is_away}
        return [path for path in self.netmap.announced() if path[-1] not in away]

    # Who is below

    def quiet(self, link: Hashable, path: tuple[str, ...]) -> None:
        """Note that the next process below this neighbour that is online is ``path[0]``, a quiet one.

        Raises Forged if the path cannot be true.
        """
        neighbour = self._below(link)
        self._check_new(neighbour, path)
        if len(path) == 1:
            raise Forged("it says of itself that it is quiet, which only its parent can say of a child")
        if neighbour.next_quiet is not None:
            raise Forged(f"it announces {shown(path)} as quiet, and the one before that is not online")
        neighbour.next_quiet = path

    def online(self, link: Hashable, path: tuple[str, ...]) -> tuple[str, ...]:
        """Note that ``path[0]``, which is the neighbour at this link or below it, is online.

        Returns the path with this process at its end. Raises Forged if the path cannot be true.
        """
        neighbour = self._below(link)
        self._check_new(neighbour, path)
        if neighbour.next_quiet not in (None, path):
            raise Forged(f"it announces {shown(path)}, and not the quiet one of which it has spoken before")
        if len(path) == 1:
            neighbour.online = True
            self.changed()
        elif neighbour.below >= MAX_BELOW:
            raise Forged(f"it announces more than {MAX_BELOW} processes below it")
        else:
            neighbour.below += 1
        is_quiet = neighbour.is_quiet if len(path) == 1 else neighbour.next_quiet is not None
        neighbour.next_quiet = None
        self.netmap.online(path, is_quiet=is_quiet)
        return (*path, self.pid)

    def _check_new(self, neighbour: Neighbour, path: tuple[str, ...]) -> None:
        """Raise Forged if no process with this path, at this neighbour or below it, can be online now."""
        if not is_pids(path, MAX_PATH) or path[-1] != neighbour.pid or not self.netmap.knows(path[1:]):
            raise Forged(f"it announces a process that is not below it, by the path {shown(path)}")
        if neighbour.online if len(path) == 1 else self.netmap.is_online(path):
            raise Forged(f"it announces {shown(path)} as online, which it is already")

    def quiet_at(self, link: Hashable) -> set[tuple[str, ...]]:
        """Return the paths of the quiet processes that are online at this link or below it."""
        paths = self.netmap.announced((self.neighbours[link].pid,))
        return {path for path in paths if self.netmap.is_quiet(path)}

    def offline(self, link: Hashable, path: tuple[str, ...], gone: tuple[str, ...]) -> tuple[str, ...]:
        """Note that ``gone[0]`` is gone, as ``path[0]`` has noticed; ``gone`` is its path as known there.

        Each process is announced for itself, those below it before. Returns ``path`` with this process at its
        end. Raises Forged if it cannot be true.
        """
        neighbour = self._below(link)
        pids = self.accept(link, path)
        if not is_pids(gone, MAX_PATH) or not self.netmap.is_online((*gone, *path)):
            raise Forged(f"it says that {shown(gone)} is gone, which is not online below {path[0]!r}")
        if self.netmap.has_below((*gone, *path)):
            raise Forged(f"it says that {shown(gone)} is gone, and not that those below it are")
        self.netmap.remove((*gone, *path))
        neighbour.below -= 1
        neighbour.paths.clear()
        return pids

    def accept(self, link: Hashable, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return the path of a record with this process at its end, after a check that it can be true.

        Raises Forged if the last hop is not the peer itself, or the origin is not known below the peer. What
        is above the parent is not known here, so of the parent's paths only the last hop is checked.
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
        neighbour.paths.keep(path, pids, size_of(pids))
        return pids

    def _below(self, link: Hashable) -> Neighbour:
        """Return the child at this link.

        Raises Forged if that is the parent: what is below us, only children can announce.
        """
        neighbour = self.neighbours[link]
        if neighbour.is_parent:
            raise Forged("it says of itself what only a child says to its parent")
        return neighbour

    # Interest

    def own_interest(self, event: str, wanted: bool) -> Change:
        """Note whether this process has listeners for an event. Returns what to announce to the parent."""
        return self.interest.add(_HERE, event) if wanted else self.interest.remove(_HERE, event)

    def own_interests(self, events: Iterable[str]) -> Change:
        """Note all events for which this process has listeners. Returns what to announce to the parent."""
        return self.interest.replace(_HERE, events)

    def peer_interest(self, link: Hashable, event: str, wanted: bool) -> Change:
        """Note that a child's subtree began or ceased to listen to an event.

        Returns what to announce to the parent. Raises ProtocolError if ``event`` is not an event's name.
        """
        self._below(link)
        check_names((event,))
        if wanted:
            return self._more(link, (event,))
        change = self.interest.remove(link, event)
        self.changed()
        return change

    def peer_interests(self, link: Hashable, events: tuple[str, ...]) -> Change:
        """Note all events that a child's subtree listens to. Returns and raises as ``peer_interest``."""
        self._below(link)
        names = set(check_names(events))
        if len(names) > MAX_INTEREST:
            change = self.interest.want_everything(link)
        else:
            change = self.interest.replace(link, names)
        self.changed()
        return change

    def more_peer_interests(self, link: Hashable, events: tuple[str, ...]) -> Change:
        """Add to the events that a child's subtree listens to. Returns and raises as ``peer_interest``."""
        self._below(link)
        return self._more(link, check_names(events))

    def peer_wants_everything(self, link: Hashable) -> Change:
        """Note that a child's subtree wants every event. Returns as ``peer_interest``."""
        self._below(link)
        change = self.interest.want_everything(link)
        self.changed()
        return change

    def _more(self, link: Hashable, events: tuple[str, ...]) -> Change:
        """Add to what a child's subtree wants: everything, if the names become too many."""
        more = sum(not self.interest.wants(link, event) for event in set(events))
        if self.interest.count(link) + more > MAX_INTEREST:
            change = self.interest.want_everything(link)
        else:
            change = self.interest.add_all(link, events)
        self.changed()
        return change

    def wants(self, link: Hashable, event: str) -> bool:
        """Return whether an event has to go down this link.

        It has if somebody there listens to it, and as long as the child is not online: its interest is not
        known before.
        """
        neighbour = self.neighbours[link]
        return not neighbour.online or self.interest.wants(link, event)

    # Answerers

    def own_answers(self, event: str, capacity: int) -> Change:
        """Note how many requests of an event this process works on at once; 0: it answers none.

        Returns what to announce to the parent.
        """
        return self._answers_changed(self.answerers.set(_HERE, event, int(capacity > 0), capacity))

    def own_answered(self, events: Iterable[tuple[str, int]]) -> Change:
        """Note all events of which this process answers requests, each with its capacity.

        Returns what to announce to the parent.
        """
        return self._answers_changed(self.answerers.replace(_HERE, events))

    def peer_answers(self, link: Hashable, event: str, count: int, capacity: int) -> Change:
        """Note how many processes of a child's subtree answer an event, and their capacity.

        Returns what to announce to the parent. Of more events than are kept for a neighbour nothing is noted:
        they are answered, but not counted, and a request to all does not go there.
        """
        self._below(link)
        if self.answerers.size(link) >= MAX_INTEREST and not self.answerers.of(link, event):
            return Change()
        sums = self.answerers.set(link, event, count, capacity)
        return self._answers_changed(sums)._replace(answers=self._told(sums))

    def _answers_changed(self, sums: Sums) -> Change:
        if sums:
            self.changed()
        return Change(answers=sums)

    def _told(self, sums: Sums) -> Sums:
        """Return what of these the parent is told: of a pool only what this process does as its worker."""
        return tuple(
            [each for each in sums if not each[0].startswith(POOL_EVENT) or self.answerers.of(_HERE, each[0])]
        )

    def told_answers(self) -> Sums:
        """Return all that a new parent is told of answers, here and below."""
        return self._told(self.answerers.sums())

    def answerers_below(self, event: str) -> int:
        """Return how many processes below this one answer requests of an event."""
        return self.answerers.sum(event) - self.answerers.of(_HERE, event)

    def answering_links(self, event: str) -> dict[Hashable, int]:
        """Return the links of all neighbours below that can be given a request of an event now.

        Each has the capacity of what answers it there.
        """
        return {
            link: capacity
            for link, capacity in self.answerers.sources(event)
            if link is not _HERE and not self.neighbours[link].is_away
        }

    def answers(self, link: Hashable, event: str) -> bool:
        """Return whether a request to all has to go down this link, as ``wants`` does for an event."""
        neighbour = self.neighbours[link]
        return not neighbour.online or self.answerers.of(link, event) > 0
