"""Which neighbour had which name, so that no name is given to another neighbour later.

A route is made of names. User code may keep ``message.pids`` for any time, and answer when the sender is
gone. By then another process may have the same address and port, or the same OS pid, and must not get that
answer. So a name belongs to the incarnation that had it first; another incarnation gets the name with a
suffix. (An incarnation is the random number that each emitter chooses when it is made.)
"""

from __future__ import annotations

from collections.abc import Callable

# How many names are remembered; the longest unused one is forgotten first. More than there are OS pids
# (32,768, the kernel's default for pid_max) or ports for outgoing connections (28,232, its
# ip_local_port_range).
MAX_NAMES = 65_536
_MOST_BYTES = 64  # of a name: the handshake carries no longer one
_SUFFIXES = (6, 16)  # lengths of the suffix, in hexadecimal digits of the incarnation


class Names:
    """The names of one process's neighbours, kept from ``stop()`` to the next ``start()`` as well.

    The caller holds its state lock.
    """

    def __init__(self, most: int = MAX_NAMES) -> None:
        self._most = most
        self._owners: dict[str, int] = {}  # incarnation by name, the longest unused first

    def give(self, wanted: str, incarnation: int, is_taken: Callable[[str], bool]) -> str:
        """Return a name for this incarnation of a neighbour: the wanted one, or that with a suffix.

        It is the same one each time, as long as it is remembered and not taken. ``is_taken`` returns whether
        a name may not be used at this moment, no matter which neighbour had it.
        """
        base = wanted.encode()[: _MOST_BYTES - max(_SUFFIXES) - 1].decode(errors="ignore")
        number = f"{incarnation:016x}"
        for name in (wanted, *(f"{base}-{number[-digits:]}" for digits in _SUFFIXES)):
            if self._owners.get(name, incarnation) == incarnation and not is_taken(name):
                break
        # If none is free (two neighbours with the same random number), the last one is returned. If that is
        # taken, the connection is refused when the name is to be used.
        self._owners.pop(name, None)
        self._owners[name] = incarnation
        if len(self._owners) > self._most:
            del self._owners[next(iter(self._owners))]
        return name
