"""The requests that have gone down each link and are not answered yet: in every process on their way.

Each process gives the requests that go down a link numbers of its own, from 1 on. It remembers where each
came from, and the number that it had there. An answer goes back the same way. So it needs no route, one that
was not asked for is noticed, and no process can guess or take what belongs to another one. When a link is
gone, whoever has asked over it is told at once. Pure: the caller holds the state lock.

A request to all is split where the tree branches. What is still to come over a link is one, and what was
split off more, and less what was answered or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .._exceptions import ProtocolError
from .crew import Work

MAX_OPEN = 100_000  # requests that went down one link and are not answered (README, Asking)

# What an answer is: the second number of its payload.
VALUE = 0  # what the function has returned
RAISED = 1  # what it has raised, see outcomes.py
NO_ANSWERER = 2  # nobody answers there: a text why not
LOST = 3  # the process that had it is gone: pid, name, exit code, whether it was begun (None: not known)
CANCELLED = 4  # it was not begun, because nobody waits for it any more
OVERDUE = 5  # the same, because its deadline was over
REFUSED = 6  # it was not begun, or its answer not sent, because too much waits: a text
SPLIT = 7  # so many more answers come; or fewer, if negative
_STATUSES = frozenset({VALUE, RAISED, NO_ANSWERER, LOST, CANCELLED, OVERDUE, REFUSED, SPLIT})
MAX_SPLIT = 1 << 20

# Whom a request reaches over a link: what the process there has begun tells about the first of these only.
NEXT = 0  # that process
BEYOND = 1  # one further on, to which that process passes it on
BOTH = 2  # that process and others further on

# For an event: the number of the last request that the process at a link has begun, of all that begin in the
# same lane; None where that cannot be known. A lane begins requests in the order of their numbers.
BegunLast = Callable[[str], "tuple[int, int] | None"]


def begun_nothing(event: str) -> tuple[int, int]:
    """A BegunLast of a process that has begun nothing at all."""
    return 0, 0


class Asked:
    """One request that went down a link.

    ``back`` is the link that it came by, with ``back_number``. Of a request that started here it is what
    waits for the answer, and None where nothing does any more.
    """

    __slots__ = ("back", "back_number", "event", "is_cancelled", "left", "reach")

    def __init__(self, back: Any, event: str, back_number: int = 0, reach: int = NEXT) -> None:
        self.back = back
        self.back_number = back_number
        self.event = event
        self.left = 1  # answers that are still to come
        self.reach = reach
        self.is_cancelled = False  # the process there was told that nobody waits for the answer


class Given(Asked):
    """One request to any that this process has given to a neighbour, or that waits for one, see crew.py."""

    __slots__ = ("is_taken_above", "is_taken_back", "work")

    def __init__(self, back: Any, work: Work, back_number: int = 0) -> None:
        super().__init__(back, work.event, back_number)
        self.work = work
        self.is_taken_back = False  # the process there was asked to give it back
        self.is_taken_above = False  # for the process above, which has given it to this one


class Gone:
    """A request that nobody will answer any more. ``begun``: whether it was begun; None if not known."""

    __slots__ = ("asked", "back", "back_number", "begun", "event", "left", "number")

    def __init__(self, number: int, asked: Asked, begun: bool | None) -> None:
        self.asked = asked
        self.number = number
        self.back = asked.back
        self.back_number = asked.back_number
        self.event = asked.event
        self.left = asked.left
        self.begun = begun


class Down:
    """The open requests of one link by their numbers, in the order in which they were put there."""

    __slots__ = ("last", "requests", "waiting")

    def __init__(self, last: int = 0) -> None:
        self.last = last  # the number that was given last
        self.requests: dict[int, Asked] = {}
        self.waiting: dict[int, Asked] = {}  # put for the next process of a child, while the last is read

    def __len__(self) -> int:
        return len(self.requests) + len(self.waiting)

    def get(self, number: int) -> Asked | None:
        """Return the request with a number."""
        return self.requests.get(number) or self.waiting.get(number)


class Requests:
    """The open requests of one process, by the links that they went down."""

    def __init__(self) -> None:
        self.down: dict[Hashable, Down] = {}
        # By the link that they came by, and their number there: the links that they went down, with numbers.
        self._by: dict[Hashable, dict[int, list[tuple[Hashable, int]]]] = {}

    def clear(self) -> None:
        """Forget all of them."""
        self.down.clear()
        self._by.clear()

    def is_full(self, link: Hashable, count: int = 1) -> bool:
        """Return whether so many more may not go down this link."""
        down = self.down.get(link)
        return down is not None and len(down) + count > MAX_OPEN

    def count(self, link: Hashable) -> int:
        """Return how many went down this link and are not answered."""
        down = self.down.get(link)
        return 0 if down is None else len(down)

    def put(
        self,
        link: Hashable,
        back: Any,
        event: str,
        back_number: int | None = None,
        *,
        waits: bool = False,
        reach: int = NEXT,
    ) -> int:
        """Note a request that goes down a link now, and return its number there.

        ``back_number`` is the one with which it came by the link ``back``; None: it started here, and
        ``back`` waits for the answer. ``waits``: it is for the next process there. ``reach`` is one of NEXT,
        BEYOND and BOTH.
        """
        down = self.down.get(link)
        if down is None:
            down = self.down[link] = Down()
        number = down.last = down.last + 1
        asked = Asked(back, event, back_number or 0, reach)
        (down.waiting if waits else down.requests)[number] = asked
        if back_number is not None:
            self._by.setdefault(back, {}).setdefault(back_number, []).append((link, number))
        return number

    def add(self, link: Hashable, asked: Asked) -> int:
        """Note a request, which was taken elsewhere, as one that goes down a link now. Returns its number."""
        down = self.down.get(link)
        if down is None:
            down = self.down[link] = Down()
        number = down.last = down.last + 1
        down.requests[number] = asked
        if asked.back_number:
            self._by.setdefault(asked.back, {}).setdefault(asked.back_number, []).append((link, number))
        return number

    def take(self, link: Hashable, number: int) -> Asked | None:
        """Remove and return a request that has gone down a link, or waits there; None if it is not there."""
        down = self.down.get(link)
        asked = None if down is None else down.requests.pop(number, None)
        if asked is not None:
            self._forget(asked, link, number)
        return asked

    def answered(self, link: Hashable, number: int, status: int, more: int = 0) -> tuple[Asked, bool]:
        """Note an answer that came by a link. ``more``: how many more come, for SPLIT.

        Returns the request and whether it was the last answer. Raises ProtocolError for an answer that was
        not asked for there.
        """
        down = self.down.get(link)
        asked = None if down is None else down.requests.get(number)
        if asked is None or down is None or status not in _STATUSES:
            raise ProtocolError(f"an answer of the sort {status} to a request {number} that it never got")
        if status == SPLIT:
            if not -asked.left <= more <= MAX_SPLIT:
                raise ProtocolError(f"an answer that stands for {more} more")
            asked.left += more
        else:
            asked.left -= 1
        if asked.left > 0:
            return asked, False
        del down.requests[number]
        self._forget(asked, link, number)
        return asked, True

    def _forget(self, asked: Asked, link: Hashable, number: int) -> None:
        """Remove a request from those of the link that it came by."""
        by = self._by.get(asked.back) if asked.back_number else None
        places = None if by is None else by.get(asked.back_number)
        if places is not None and (link, number) in places:
            places.remove((link, number))
            if not places and by is not None:
                del by[asked.back_number]

    def gone(self, link: Hashable, begun: BegunLast | None = None, *, goes_on: bool = False) -> list[Gone]:
        """Return, and forget, all that nobody will answer any more because the link is gone.

        ``begun`` is asked for each event; None: nothing is known. With ``goes_on`` another process follows at
        this link, and answers what waits for it.
        """
        down = self.down.pop(link, None)
        if down is None:
            return []
        last: dict[str, tuple[int, int] | None] = {}
        gone = []
        for number, asked in down.requests.items():
            was_begun: bool | None = None
            if begun is not None and asked.reach == NEXT:
                if asked.event not in last:
                    last[asked.event] = begun(asked.event)
                found = last[asked.event]
                was_begun = None if found is None else number <= found[1]
            gone.append(Gone(number, asked, was_begun))
        if goes_on:
            following = self.down[link] = Down(down.last)
            following.waiting, following.requests = {}, down.waiting
        else:
            gone += [Gone(number, asked, False) for number, asked in down.waiting.items()]
        for each in gone:
            asked_then = down.get(each.number)
            if asked_then is not None:
                self._forget(asked_then, link, each.number)
        return gone

    def is_begun(self, link: Hashable, number: int, begun: BegunLast) -> bool:
        """Return whether the process at this link is known to have begun a request, see ``gone``."""
        down = self.down.get(link)
        asked = None if down is None else down.requests.get(number)
        if asked is None or asked.reach != NEXT:
            return False
        found = begun(asked.event)
        return found is not None and number <= found[1]

    def get(self, link: Hashable, number: int) -> Asked | None:
        """Return the request that went down a link with this number, if it is open."""
        down = self.down.get(link)
        return None if down is None else down.get(number)

    def of(self, back: Hashable, back_number: int) -> list[tuple[Hashable, int]]:
        """Return the links down which a request went that came by ``back``, with its numbers there."""
        return list(self._by.get(back, {}).get(back_number, ()))

    def asker_gone(self, back: Hashable) -> list[tuple[Hashable, int]]:
        """Note that nobody waits for the answers to all that came by a link. Returns as ``of`` for all."""
        found = [place for places in self._by.pop(back, {}).values() for place in places]
        for link, number in found:
            asked = self.get(link, number)
            if asked is not None:
                asked.back, asked.back_number = None, 0
        return found

    def each(self) -> list[tuple[Any, int, Asked]]:
        """Return all requests that are not answered, each with its link and number."""
        return [
            (link, number, asked)
            for link, down in self.down.items()
            for number, asked in (*down.requests.items(), *down.waiting.items())
        ]
