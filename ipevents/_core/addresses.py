"""Addresses of sockets as plain values: how they are spelled, and in what order they are used.

A host's name may stand for several addresses. A client tries all of them, in the order in which the system
gives them. A server listens at all of them that its machine has, in ``listening_order``, which is the same
for all programs. So programs with the same ``host`` and ``port`` meet, also when they start at once:

- The first address of that order which the machine has is the meeting point. The kernel lets one of them
  listen there; the others fail at this very address, hold nothing yet, and connect instead. So the one that
  got it is never in the way of another one, nor another one in its way at the addresses that follow.
- Programs with different hosts that have an address in common (``localhost`` and ``::1``) may each hold some
  of what they want. A program that finds an address taken gives back what it holds and connects again, to all
  of its addresses: what took the address is reached there. All take them in the same order, so they never
  wait for each other in a circle.
- What a machine has not got (no IPv6, an address of another machine) is left out. If that changes while two
  start, one of them still finds taken what the other holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

_MAPPED = "::ffff:"  # an IPv4 client of an IPv6 socket that takes both


class Address(NamedTuple):
    """Where a socket is: ``family`` as multiprocessing spells it, AF_UNIX, AF_INET or AF_INET6.

    ``where`` is a path, (host, port), or (host, port, flow, scope).
    """

    family: str
    where: Any


def spelled(where: str | tuple[Any, ...]) -> str:
    """An address as texts for users have it, and the pids of TCP clients: ``127.0.0.1:7100``, ``[::1]:7100``.

    The scope of a link-local one is told by number: ``[fe80::1%2]:7100``.
    """
    if isinstance(where, str):
        return where
    host, port, *more = where
    if host.startswith(_MAPPED) and "." in host:
        host = host[len(_MAPPED) :]
    if ":" not in host:
        return f"{host}:{port}"
    scope = f"%{more[1]}" if len(more) > 1 and more[1] and "%" not in host else ""
    return f"[{host}{scope}]:{port}"


def to_connect(addresses: Iterable[Address]) -> list[Address]:
    """Where to look for a server that listens at these: in place of all addresses of a machine, its own."""
    found: list[Address] = []
    for address in addresses:
        host, port, *_ = address.where
        four, six = Address("AF_INET", ("127.0.0.1", port)), Address("AF_INET6", ("::1", port, 0, 0))
        found += {"0.0.0.0": [four], "::": [six, four]}.get(host, [address])
    return list(dict.fromkeys(found))


def listening_order(addresses: Iterable[Address]) -> list[Address]:
    """In what order a server listens at these; see the module. It does not depend on the order given."""
    return sorted(set(addresses))
