"""When a client tries to connect again, and which failed try is worth a report.

All clients of a server that ends lose it at the same moment. If each waited equally long, all would come back
at the same moment, too, and again with each try that fails. So each wait is drawn at random: the caller hands
in ``chance``, a number from 0 up to 1 that is as likely to be any as any other.
"""

from __future__ import annotations

__all__ = ["Failures", "first_wait", "next_wait"]

FIRST = 0.5  # the first try comes within this part of the delay
SPREAD = 0.3  # each other wait is so much shorter or longer than the delay, at most
MAX_REPORTED = 16  # most distinct causes that are reported in one episode


def first_wait(delay: float, chance: float) -> float:
    """Return the seconds from a break to the first try."""
    return FIRST * delay * chance


def next_wait(delay: float, chance: float) -> float:
    """Return the seconds from a try that has failed to the next one; ``delay`` on average."""
    return delay * (1 - SPREAD + 2 * SPREAD * chance)


class Failures:
    """Which failed tries of one episode are news: each distinct cause once, and no try that says nothing.

    That nobody is there says nothing, for that is what the client waits for. Neither does one hang-up in the
    handshake: a server that ends hangs up on whoever comes just then, also where its system closes its
    sockets one by one because it was killed. A stranger at the address does so at the next try as well.
    """

    __slots__ = ("_hung_up", "_reported")

    def __init__(self) -> None:
        self._reported: set[tuple[type[Exception], str]] = set()
        self._hung_up: tuple[type[Exception], str] | None = None  # how the last try ended, if it was cut off

    def are_news(self, error: Exception) -> bool:
        """Note why a try failed; return whether that is to be reported."""
        cause = (type(error), str(error))
        before, self._hung_up = self._hung_up, None
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return False
        # Not any ConnectionError: a refusal is one as well, and the other end has said why.
        if isinstance(error.__cause__, ConnectionResetError | BrokenPipeError):
            self._hung_up = cause
            if before != cause:
                return False
        if cause in self._reported or len(self._reported) >= MAX_REPORTED:
            return False
        self._reported.add(cause)
        return True
