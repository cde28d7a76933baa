"""When a client tries to connect again.

All clients of a server that ends lose it at the same moment. If each waited equally long, all would come back
at the same moment, too, and again with each try that fails. So each wait is drawn at random: the caller hands
in ``chance``, a number from 0 up to 1 that is as likely to be any as any other.
"""

from __future__ import annotations

FIRST = 0.5  # the first try comes within this part of the delay
SPREAD = 0.3  # each other wait is so much shorter or longer than the delay, at most


def first_wait(delay: float, chance: float) -> float:
    """Return the seconds from a break to the first try."""
    return FIRST * delay * chance


def next_wait(delay: float, chance: float) -> float:
    """Return the seconds from a try that has failed to the next one; ``delay`` on average."""
    return delay * (1 - SPREAD + 2 * SPREAD * chance)
