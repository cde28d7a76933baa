"""The books: what became of each event, in numbers that can be checked (README, Books).

A link counts in both directions. What it has sent is acknowledged, still unacknowledged, or lost. What it has
received was

- *delivered*: it was for this process, and at least one listener was called,
- *unheard*: it was for this process, and nobody listened,
- *unreadable*: it was for this process, and its arguments could not be unpickled,
- *forwarded*: it was for others only, and went into the books of the links to them, or
- *dropped*: it ended here, for a cause that is counted as well.

These five are the outcomes. Each event that was received has exactly one, so their sum is what was received.
An acknowledgement carries them, because a process that dies takes its own books along.

Pure, and without a lock. What a link has received is counted by its reader, what was sent by the thread that
writes, all else under the state lock; it is added up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Outcomes = tuple[int, int, int, int]
# Their places; what is in none of these was delivered.
UNHEARD, UNREADABLE, FORWARDED, DROPPED = range(4)
_NAMES = ("unheard", "unreadable", "forwarded", "dropped")
NONE: Outcomes = (0, 0, 0, 0)

# Counters of a link, or of all that are gone, by group and name; the group is "" for those that have none.
Counters = dict[tuple[str, str], int]


def more(outcomes: Outcomes, place: int, count: int) -> Outcomes:
    """Return the outcomes with ``count`` more of one kind."""
    return (*outcomes[:place], outcomes[place] + count, *outcomes[place + 1 :])  # type: ignore[return-value]


def plus(one: Outcomes, other: Outcomes) -> Outcomes:
    """Return the sum of two."""
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def minus(one: Outcomes, other: Outcomes) -> Outcomes:
    """Return what ``one`` has more than ``other``, of which it is the later state."""
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3])


def are_outcomes(value: object) -> bool:
    """Return whether a peer may have sent this as outcomes."""
    return type(value) is tuple and len(value) == len(NONE) and all(type(count) is int for count in value)


def by_place(group: str, outcomes: Outcomes) -> Counters:
    """Return outcomes as counters of this group."""
    return {(group, name): count for name, count in zip(_NAMES, outcomes, strict=True)}


def by_cause(group: str, causes: Mapping[str, int]) -> Counters:
    """Return what was lost, by cause, as counters of this group."""
    return {(group, cause): count for cause, count in causes.items()}


def group_of(counters: Counters, group: str) -> dict[str, int]:
    """Return the counters of one group by their names, without those that are 0."""
    return {name: count for (found, name), count in counters.items() if found == group and count}


def add(total: Counters, counters: Counters) -> None:
    """Add counters to a total."""
    for key, count in counters.items():
        total[key] = total.get(key, 0) + count


def since(counters: Counters, before: Counters) -> Counters:
    """Return what was counted since these counters were what they were before."""
    return {key: count - before.get(key, 0) for key, count in counters.items()}


def shown(counters: Counters) -> dict[str, Any]:
    """Return the counters of a link, or of all that are gone, as ``stats()`` shows them."""
    plain = group_of(counters, "")
    acknowledged = plain.get("acknowledged", 0)
    others = _outcomes(counters, "acknowledgedAs")
    return {
        "sent": plain.get("sent", 0),
        "acknowledged": acknowledged,
        "acknowledgedAs": {"delivered": acknowledged - sum(others.values()), **others},
        "lost": plain.get("lost", 0),
        "dropped": group_of(counters, "dropped"),
        "received": plain.get("received", 0),
        "receivedAs": {"delivered": plain.get("delivered", 0), **_outcomes(counters, "receivedAs")},
        "forwarded": plain.get("forwarded", 0),
    }


def _outcomes(counters: Counters, group: str) -> dict[str, int]:
    return {name: counters.get((group, name), 0) for name in _NAMES}
