"""Listening sockets and connections as the library wants them: who may connect, who blocks, who is there."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, Listener
from typing import Any

from .._core.addresses import Address, listening_order, spelled
from .._exceptions import LinkError

__all__ = [
    "advice",
    "connection_from",
    "kept",
    "listen",
    "listen_at_all",
    "listening_socket",
    "peer_uid",
    "resolve",
]

BACKLOG = 128  # multiprocessing's 1 let 41 of 200 simultaneous TCP clients in within 20 s
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # this machine has not got such an address


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, in the order in which they are to be tried.

    Blocks for as long as the system looks a name up, which nothing can break off. Raises
    :exc:`LinkError` where there is no such name.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: what can be no name of a host
        reason = getattr(error, "strerror", None) or error
        text = (
            f"the host {host!r} cannot be looked up: {reason}; socket.host is the name or address of a host"
        )
        raise LinkError(text) from error
    families = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys(Address(item[0].name, item[4]) for item in found if item[0] in families))


def listen(where: str | tuple[Any, ...], family: str) -> Listener:
    """Return a listener at an address: a path for ``"AF_UNIX"``, (host, port) for ``"AF_INET"``.

    It removes no file: multiprocessing's own removal, by path alone, would delete the socket of
    whoever took the path over. See :class:`SocketFile`. Raises OSError as ``bind`` does.
    """
    listener = Listener(where, family, backlog=BACKLOG)
    inner = listener._listener  # type: ignore[attr-defined]  # not in typeshed, same in 3.10 to 3.15
    if inner._unlink is not None:
        inner._unlink.cancel()
        inner._unlink = None
    return listener


def listening_socket(listener: Listener) -> socket.socket:
    """Return the socket of a listener, which stays the listener's."""
    sock: socket.socket = listener._listener._socket  # type: ignore[attr-defined]  # see listen()
    return sock


def listen_at_all(addresses: Iterable[Address]) -> list[Listener]:
    """Listen at each of the addresses that this machine has, or at none: see ``_core.addresses``.

    Raises :exc:`LinkError` where it has none of them, OSError as ``bind`` does, EADDRINUSE where one is
    taken, and names the address; then nothing is listened at.
    """
    listeners: list[Listener] = []
    missing = []
    try:
        for family, where in listening_order(addresses):
            try:
                listeners.append(listen(where, family))
            except OSError as error:
                text = f"{spelled(where)}: {error.strerror}{advice(error.errno, where, listens=True)}"
                if error.errno not in _NOT_HERE:
                    raise OSError(error.errno, text) from error
                missing.append(text)
                continue
            if where[0] == "::" and _is_only_six(listeners[-1]):
                listeners.append(listen(("0.0.0.0", where[1]), "AF_INET"))
    except BaseException:  # nobody else has them yet
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise LinkError("; ".join(missing))
    return listeners


def _is_only_six(listener: Listener) -> bool:
    """Whether ``::`` means IPv6 alone here, which ``bindv6only`` decides; ours means both."""
    return bool(listening_socket(listener).getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def advice(number: int | None, where: tuple[Any, ...], *, listens: bool = False) -> str:
    """Return what to do about an error of ``connect``, or of ``bind`` (``listens``); or ``""``.

    It is to be put after the error's text.
    """
    host, port = where[:2]
    if number == errno.EAFNOSUPPORT or (number == errno.EADDRNOTAVAIL and host == "::1"):
        return " (there is no IPv6 here; 0.0.0.0 and 127.0.0.1 are addresses of IPv4)"
    if number == errno.EADDRNOTAVAIL and listens:  # for a connect it means that no port is left
        return " (this machine has no such address; socket.onlyConnect waits for a server elsewhere)"
    if number == errno.EACCES and port < 1024 and listens:
        return " (a port below 1024 needs privileges; choose a socket.port from 1024 on)"
    if number == errno.EINVAL and host.lower().startswith("fe80:"):
        return f" (a link-local address needs its interface: {host}%eth0)"
    if number == errno.ENETUNREACH and (host.startswith("127.") or host == "::1"):
        return " (the loopback interface is down: ip link set lo up)"
    return ""


def connection_from(sock: socket.socket) -> Connection:
    """Return a blocking Connection that owns the descriptor of ``sock``, which is detached."""
    # Blocking for ever, whatever socket.setdefaulttimeout() said when the socket was made.
    sock.setblocking(True)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(kept(sock.detach))


def kept(call: Callable[..., int], *args: object) -> int:
    """What ``call(*args)`` returns, a new descriptor: closed where a signal handler raises right after it."""
    numbers: list[int] = []
    try:
        numbers += itertools.starmap(call, (args,))  # in the list before a handler can run
    except BaseException:
        for number in numbers:
            os.close(number)
        raise
    return numbers[0]


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user at the other end of an AF_UNIX socket, or None where the system does not say."""
    if sys.platform != "linux":
        return None
    ucred = struct.Struct("3i")  # pid, uid, gid
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
    uid: int = ucred.unpack(credentials)[1]
    return uid
