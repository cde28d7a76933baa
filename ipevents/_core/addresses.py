"""Addresses of sockets as plain values: how they are spelled, and in what order they are used.

A host name may stand for several addresses. A client tries all of them, in the order in which the system
returns them. A server listens at all of them that its machine has, in ``listening_order``, which is the same
for all programs. So programs with the same ``host`` and ``port`` find each other even if they start at once:

- They all try first to listen at the same address: the first one in that order that the machine has. The
  kernel lets one program listen there. The others fail there before they hold any address, and connect
  instead. So none of them is in the way of the one that succeeded when it goes on to the addresses that
  follow.
- Programs with different hosts may have an address in common (``localhost`` and ``::1``), and each may hold
  some of the addresses it wants. A program that finds an address taken closes those that it holds and
  connects again, to all of its addresses; at the taken one it reaches the program that holds it. All programs
  take addresses in the same order, so they never wait for each other in a circle.
- Addresses that the machine does not have (no IPv6, or an address of another machine) are left out. If that
  changes while two programs start, one of them still finds an address taken that the other holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

_MAPPED = "::ffff:"  # begins the address of an IPv4 client at an IPv6 socket that accepts both


class Address(NamedTuple):
    """The address of a socket. ``family`` is "AF_UNIX", "AF_INET" or "AF_INET6", as in multiprocessing.

    ``where`` is in this order a path, (host, port), or (host, port, flow, scope).
    """

    family: str
    where: Any


def spelled(where: str | tuple[Any, ...]) -> str:
    """Return an address as text: ``127.0.0.1:7100``, ``[::1]:7100``, a path.

    Texts for users have it in this form, and so have the pids of TCP clients. The scope of a link-local
    address is shown as a number: ``[fe80::1%2]:7100``.
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


def on_loopback(where: str | tuple[Any, ...]) -> bytes:
    """Return what a handshake says of this address of a server: its text, if it is one of this machine alone.

    Otherwise ``b""``: only between two programs of one machine do both ends have to see the same address.
    The scope is left out, and an IPv4 address at an IPv6 socket is the IPv4 one.
    """
    if isinstance(where, str):
        return b""
    host, port = where[0].removeprefix(_MAPPED), where[1]
    return spelled((host, port)).encode() if host == "::1" or host.startswith("127.") else b""


def remote(addresses: Iterable[Address]) -> list[Address]:
    """Return those of the addresses that are not of this machine alone."""
    return [address for address in addresses if not on_loopback(address.where)]


def to_connect(addresses: Iterable[Address]) -> list[Address]:
    """Return where to connect to a server that listens at these addresses.

    ``0.0.0.0`` and ``::`` mean all addresses of a machine, and are replaced by the loopback addresses.
    """
    found: list[Address] = []
    for address in addresses:
        host, port, *_ = address.where
        four, six = Address("AF_INET", ("127.0.0.1", port)), Address("AF_INET6", ("::1", port, 0, 0))
        found += {"0.0.0.0": [four], "::": [six, four]}.get(host, [address])
    return list(dict.fromkeys(found))


def listening_order(addresses: Iterable[Address]) -> list[Address]:
    """Return the order in which a server listens at these addresses; see the top of this file.

    It does not depend on the order in which they are given.
    """
    return sorted(set(addresses))
