"""When a peer over TCP is dead: its machine is off, or the network between it and us is cut.

Three cases. Nothing is on its way: the kernel asks the other end now and then, as ``keepalive`` says. The
peer has begun a frame and sends no more of it: the reader thread waits for so long and no longer. Something
is on its way to the peer: ``judge`` decides, from what the kernel knows of the connection.

A peer that does not read is not dead. Its kernel says that there is no room, and goes on answering when ours
asks again (a window probe). That is so for as long as a listener runs there, and a session is not to end by
it. The kernel's own limit, ``TCP_USER_TIMEOUT``, is of no use for that: it ends the connection of such a peer
after that time. It even does so within 0.3 s where a peer had no room for a moment, and much later has none
again: if it made room in small pieces, Linux (6.18) counts from the first time.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

MIN_SECONDS = 1.0  # a shorter limit counts as this
LOOK_SECONDS = 3.0  # from one look to the next, at most
LOOKS = 8  # in the time after which a peer is dead, at least
ANSWER_SECONDS = 1.0  # in which a living peer acknowledges what was sent last, at most
UNANSWERED_PROBES = 3  # window probes; a network may lose one or two
MAX_KEEPALIVE_SECONDS = 32767  # of one step; the kernel takes no more
MAX_KEEPALIVE_PROBES = 3


class OnItsWay(NamedTuple):
    """What the kernel knows of one direction of a connection."""

    in_flight: int  # segments that were sent and are not acknowledged
    unsent: int  # bytes that are not sent yet, as the peer has no room or the network is slow
    probes: int  # window probes that were not answered, in a row
    since_sent: float  # seconds since data was sent, also if not for the first time
    since_acknowledged: float  # seconds since anything was acknowledged, also a probe
    round_trip: float = 0.0  # seconds that an answer took lately


class Verdict(Enum):
    """What a look at a connection has found."""

    IDLE = "nothing is on its way"
    ALIVE = "something is on its way, and the peer answers, or may still do so"
    DEAD = "something is on its way, and the peer has not answered for too long"


def judge(found: OnItsWay, seen: float, dead_after: float) -> Verdict:
    """Return what is to be thought of the peer.

    ``seen``: for how many seconds each look has found something on its way. Before that there was nothing to
    be acknowledged, so that time counts for nothing.
    """
    if not found.in_flight and not found.unsent:
        return Verdict.IDLE
    if min(found.since_acknowledged, seen) < dead_after:
        return Verdict.ALIVE
    if found.in_flight:
        # A peer whose kernel has no memory drops what comes, but answers. What is sent again comes ever more
        # rarely, so its last answer may be old: it has time to answer what was sent last.
        answer = answer_within(dead_after, found.round_trip)
        unanswered = answer <= found.since_sent < found.since_acknowledged
    else:
        unanswered = found.probes >= UNANSWERED_PROBES  # the same: probes come ever more rarely
    return Verdict.DEAD if unanswered else Verdict.ALIVE


def answer_within(dead_after: float, round_trip: float) -> float:
    """Return how many seconds a living peer has to acknowledge what was sent last.

    Where ``dead_after`` is short that is short as well: what is sent again comes at growing distances, and
    the wait for one of a whole second would take as long as ``dead_after`` once more. Over a slow network it
    is two round trips all the same.
    """
    return min(ANSWER_SECONDS, max(dead_after / LOOKS, 2 * round_trip))


def limit(seconds: float) -> float:
    """Return the time after which a peer is dead, for what the option says; 0.0 for never."""
    return max(MIN_SECONDS, seconds) if seconds else 0.0


def look_every(dead_after: float) -> float:
    """Return how many seconds lie between two looks at a connection on which something is on its way."""
    return min(LOOK_SECONDS, dead_after / LOOKS)


class Keepalive(NamedTuple):
    """The kernel's questions on a connection on which nothing is on its way, in whole seconds."""

    idle: int  # from the last sign of life to the first question
    interval: int  # to the next ones, if there is no answer
    probes: int  # after so many without an answer the peer is dead


def keepalive(dead_after: float) -> Keepalive:
    """Return when to ask, so that the end comes within ``dead_after``; the shortest possible is 2 s."""
    whole = int(dead_after)
    idle = min(max(1, whole // 2), MAX_KEEPALIVE_SECONDS)
    count = min(max(1, whole - idle), MAX_KEEPALIVE_PROBES)
    interval = min(max(1, (whole - idle) // count), MAX_KEEPALIVE_SECONDS)
    return Keepalive(idle, interval, count)
