"""Which neighbour had which name, so that none is given to another one afterwards.

A route is made of names. A user may keep ``message.pids`` for as long as he likes, and answer when the sender
is gone: the answer must not reach another process that has the same address and port, or the same OS pid, by
then. So a name belongs to the incarnation that had it first; any other one is called otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

# What is remembered. OS pids come again after 32,768 processes (pid_max, as a container has it), the ports of
# one machine after 28,232 connections; a name of more than that is forgotten when as many others came later.
MAX_NAMES = 65_536
_MOST_BYTES = 64  # of a name, as the handshake carries it
_SUFFIXES = (6, 16)  # hexadecimal digits of the incarnation


class Names:
    """The names of one process's neighbours, over all its lives. The caller holds its state lock."""

    def __init__(self, most: int = MAX_NAMES) -> None:
        self._most = most
        self._owners: dict[str, int] = {}  # incarnation by name, the longest unused first

    def give(self, wanted: str, incarnation: int, is_taken: Callable[[str], bool]) -> str:
        """Return the name of this incarnation of a neighbour: the wanted one, or that with a suffix.

        The same one each time, as long as that is remembered and not taken. ``is_taken`` tells what may not
        be used just now, whoever had it before.
        """
        base = wanted.encode()[: _MOST_BYTES - max(_SUFFIXES) - 1].decode(errors="ignore")
        number = f"{incarnation:016x}"
        for name in (wanted, *(f"{base}-{number[-digits:]}" for digits in _SUFFIXES)):
            if self._owners.get(name, incarnation) == incarnation and not is_taken(name):
                break
        # Else the last one, for two neighbours whose random numbers agree. Where it is taken just now, the
        # connection is refused when it is to be used.
        self._owners.pop(name, None)
        self._owners[name] = incarnation
        if len(self._owners) > self._most:
            del self._owners[next(iter(self._owners))]
        return name
