"""TCP ports on which nobody listens, and which no other run of the tests on this machine takes.

Each process that runs tests claims a block of numbers, by a UDP socket at the block's first one: nobody else
can bind that, and it is free again when the process ends, however it ends.
"""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Callable, Iterator

ALL = range(20_000, 32_000)  # the kernel gives no client a port of these
BLOCK = 400  # more than one process uses in the minute for which the kernel remembers an ended connection

_ports: Iterator[int] = iter(())


def claim() -> Callable[[], None]:
    """Once in a process, before its first test, as tests count descriptors; returns what gives it back."""
    global _ports
    starts = list(ALL[::BLOCK])
    random.shuffle(starts)
    for start in starts:
        claimed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claimed.bind(("127.0.0.1", start))
        except OSError:
            claimed.close()
            continue
        _ports = itertools.cycle(range(start + 1, start + BLOCK))
        return claimed.close
    raise AssertionError("no block of ports is free")


def free_port() -> int:
    """The next port of ours that any socket can bind, so not one with an ended connection."""
    for number in itertools.islice(_ports, BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
        return number
    raise AssertionError("no port of our block is free, or none is claimed")
