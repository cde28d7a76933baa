"""Who gets the next request to any: the neighbours below that answer one event, and the work that waits.

Work goes to the neighbour that has least of it for its capacity. Each gets as much as its processes work on
at once, and one piece ahead, so that none of them waits for the way from here. While pieces are short it gets
more ahead: as many as take about 5 ms there. What nobody has room for waits here, in the order in which it
came.

Where one falls idle, nothing that waits here can go to it, and another one has work ahead, that is taken back
and given to the idle one.

Pure: the caller holds the state lock, and says what time it is. How many wait where the requests are noted
(requests.py), under the crew itself in place of a link, is not known here; only their numbers in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

from .known_functions import KnownFunctions
from .messages import Header, Payload

AHEAD_SECONDS = 0.005  # as much work as a neighbour gets ahead
MOST_AHEAD = 256  # pieces that a neighbour gets ahead
_WEIGHT = 0.25  # of the last time in the mean


class Work:
    """What is asked of any one that answers.

    ``header`` begins the records with it, ``deadline`` is as for a Job. ``retries`` is how often it may be
    given to another process although it may have begun in one that is lost; ``attempts`` counts how often it
    was given out.
    """

    __slots__ = (
        "attempts",
        "avoid",
        "code",
        "code_bytes",
        "deadline",
        "event",
        "excluded",
        "header",
        "lost",
        "payload",
        "retries",
        "size",
        "stays_below",
        "too_large",
    )

    def __init__(
        self,
        event: str,
        payload: Payload,
        size: int,
        deadline: int = 0,
        header: Header | None = None,
        source: Hashable = None,
        retries: int = 0,
    ) -> None:
        self.event = event
        self.payload = payload  # without numbers
        self.size = size
        self.deadline = deadline
        self.header = header
        self.retries = retries
        self.attempts = 0
        self.stays_below = False  # not given to the parent: it came from there, or nobody answers there
        # Where it is not given to: the link that it came by, and members at which nobody answers after all. A
        # member, because another process may answer at the same link later.
        self.excluded: tuple[Hashable, ...] = () if source is None else (source,)
        self.avoid: tuple[Hashable, ...] = ()  # links of processes that were lost with it
        self.lost: Any = None  # what was said of the last of these
        self.too_large: str | None = None  # why the last one of those that take less does not take it
        self.code: Any = None  # the function that it calls, where it is the work of a pool
        self.code_bytes = 0  # of that, where no other work has it


class Member:
    """A neighbour that answers the event: what it has, and how fast it answers."""

    __slots__ = ("ahead", "answered_at", "capacity", "done", "has", "seconds", "taking")

    def __init__(self, capacity: int) -> None:
        # Requests that are worked on there at once; 0: it answers no more, and has work from before.
        self.capacity = capacity
        self.has = 0  # requests that it was given and has not answered
        self.ahead = 1  # how many more than its capacity it may have
        self.taking = 0  # of these, how many are being taken back
        self.done = 0  # requests that were answered since the mean was made
        self.seconds: float | None = None  # mean time from one answer to the next while it has work
        self.answered_at = 0.0  # the last time; where it had nothing, since it was given something

    @property
    def load(self) -> float:
        """What it has, as a part of its capacity."""
        return self.has / self.capacity

    @property
    def room(self) -> int:
        """How many more it may be given now."""
        return self.capacity + self.ahead - self.has if self.capacity else 0

    @property
    def idle(self) -> int:
        """How many of its processes, or threads, have nothing to do."""
        return max(0, self.capacity - self.has)

    @property
    def spare(self) -> int:
        """How many it has ahead that nobody takes back yet."""
        return max(0, self.has - self.capacity - self.taking) if self.capacity else 0


class Crew:
    """The neighbours that answer one event, by their links, and the numbers of the requests that wait."""

    page = channel = None  # as of a link without them

    def __init__(self, event: str) -> None:
        self.event = event
        self.members: dict[Hashable, Member] = {}
        self.version = -1  # of the topology that the members are of
        self.waiting: deque[int] = deque()  # also some of what does not wait any more
        self.count = self.bytes = 0  # of what waits
        # How many wait that cannot go to each member, by what they exclude and avoid.
        self.choosy: dict[tuple[tuple[Hashable, ...], tuple[Hashable, ...]], int] = {}
        self.is_open = False  # work waits here although nobody answers, and nobody will, see pool.py
        self.known: dict[Hashable, KnownFunctions] = {}  # what processes of a pool were sent
        self.refuses: Callable[[], Exception] | None = None  # makes the error for new requests
        self.on_change: Callable[[], None] | None = None  # called when something was answered, or is gone
        self.is_watched = False  # it will be looked whether work is to be taken back

    def update(self, capacities: Mapping[Any, int], version: int) -> None:
        """Note who answers now. One that does not any more keeps its place while it has work."""
        self.version = version
        for link, capacity in capacities.items():
            member = self.members.get(link)
            if member is None:
                self.members[link] = Member(capacity)
            else:
                member.capacity = capacity
        for link in [link for link in self.members if link not in capacities]:
            self.members[link].capacity = 0
            self._forget_if_done(link)

    def _forget_if_done(self, link: Hashable) -> None:
        """Remove a member that does not answer any more and has no work."""
        member = self.members[link]
        if not (member.capacity or member.has):
            del self.members[link]

    def takes_soon(self) -> int:
        """Return how many requests the members may have, and one more for each. Also without the lock."""
        members = list(self.members.values())
        return sum(member.capacity + member.ahead + 1 for member in members if member.capacity)

    # What waits

    def keep(self, number: int, work: Work, *, first: bool = False) -> None:
        """Let a request wait, ``first`` before all others."""
        (self.waiting.appendleft if first else self.waiting.append)(number)
        self.count += 1
        self.bytes += work.size + work.code_bytes
        if work.excluded or work.avoid:
            key = (work.excluded, work.avoid)
            self.choosy[key] = self.choosy.get(key, 0) + 1

    def release(self, work: Work) -> None:
        """Note that a request waits no more. Its number may still be in ``waiting``."""
        self.count -= 1
        self.bytes -= work.size + work.code_bytes
        if work.excluded or work.avoid:
            key = (work.excluded, work.avoid)
            self.choosy[key] -= 1
            if not self.choosy[key]:
                del self.choosy[key]

    def is_hopeless(self) -> bool:
        """Return whether something waits that none of those that answer now can get."""
        if self.is_open or not self.count:
            return False
        return not self.is_answered() or any(not self.is_answered(excluded) for excluded, _ in self.choosy)

    # Who gets it

    def choose(
        self, excluded: Collection[Hashable] = (), avoid: Collection[Hashable] = ()
    ) -> Hashable | None:
        """Return the link that gets the next request, None where nobody has room.

        It is none of ``excluded``, links or members, and none of ``avoid`` while there is another one.
        """
        best = None
        least = 0.0
        if avoid and not self.is_answered((*excluded, *avoid)):
            avoid = ()
        for link, member in self.members.items():
            if member.room <= 0 or link in excluded or member in excluded or link in avoid:
                continue
            load = member.load
            if best is None or load < least:
                best, least = link, load
        return best

    def is_answered(self, excluded: Collection[Hashable] = ()) -> bool:
        """Return whether there is a neighbour that answers and is none of these links or members."""
        return any(
            member.capacity and link not in excluded and member not in excluded
            for link, member in self.members.items()
        )

    def left(self, link: Hashable) -> None:
        """Note that the process of a neighbour is gone."""
        self.members.pop(link, None)
        self.known.pop(link, None)

    def gave(self, link: Hashable, now: float) -> None:
        """Note that a neighbour was given one request."""
        member = self.members[link]
        if not member.has:
            member.answered_at = now
        member.has += 1

    def note(self, link: Hashable, is_done: bool, was_taken_back: bool) -> None:
        """Note that a neighbour does not have a request any more, and whether it was carried out.

        ``was_taken_back``: it was asked to give it back.
        """
        member = self.members.get(link)
        if member is not None:
            member.has -= member.has > 0
            member.taking -= was_taken_back and member.taking > 0
            member.done += is_done
            self._forget_if_done(link)

    def answered(self, link: Hashable, now: float) -> None:
        """Note that this was all that a neighbour has answered until now, and how long it took."""
        member = self.members.get(link)
        if member is not None and member.done:
            seconds = max(0.0, now - member.answered_at) / member.done
            member.done = 0
            mean = member.seconds
            member.seconds = seconds if mean is None else mean + _WEIGHT * (seconds - mean)
            member.answered_at = now
            fits = AHEAD_SECONDS / max(member.seconds, AHEAD_SECONDS / MOST_AHEAD)
            member.ahead = max(1, int(fits))

    # Taking back

    def is_unbalanced(self) -> bool:
        """Return whether one is idle, and another one has work ahead.

        To be asked after what waits was given out: what still does cannot go to the idle one.
        """
        members = self.members.values()
        return any(member.idle for member in members) and any(member.spare for member in members)

    def takes_back(self) -> tuple[int, list[tuple[Hashable, int]]]:
        """Return how many requests are to be taken back in all, and how many at most from which neighbours.

        From the one with the most work ahead first: what the idle ones can begin at once, or their part of
        all that is ahead, where that is more. The caller calls ``takes`` for what it takes back.
        """
        if not self.is_unbalanced():
            return 0, []
        members = self.members.values()
        idle = sum(member.idle for member in members)
        ahead = sum(member.has - member.capacity for member in members if member.has > member.capacity > 0)
        wanted = max(idle, ahead * idle // sum(member.capacity for member in members))
        wanted -= sum(member.taking for member in members)
        givers = [(link, member) for link, member in self.members.items() if member.spare]
        givers.sort(key=lambda each: -each[1].spare / each[1].capacity)
        return max(0, wanted), [(link, member.spare) for link, member in givers]

    def is_wanted(self, work: Work) -> bool:
        """Return whether an idle neighbour would get this request, if it were taken back."""
        return any(
            member.idle
            and link not in work.excluded
            and member not in work.excluded
            and link not in work.avoid
            for link, member in self.members.items()
        )

    def takes(self, link: Hashable, count: int) -> None:
        """Note that a neighbour is asked to give back so many of the requests that it has."""
        member = self.members.get(link)
        if member is not None:
            member.taking += count
