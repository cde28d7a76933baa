"""Sockets as the library needs them: addresses, listeners, connections, the user at the other end.

Listeners and connections are those of multiprocessing, with settings of ours: a longer backlog, no removal of
files, no timeout, TCP_NODELAY.

``multiprocessing.connection`` is imported with the first socket, by three functions here and by no other
file: it imports temporary files and compression, for which ``import ipevents`` would take longer.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .._core.addresses import Address, listening_order, remote, spelled
from .._exceptions import LinkError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection, Listener

__all__ = [
    "advice",
    "connection_from",
    "connection_to",
    "kept",
    "listen",
    "listen_at_all",
    "listening_socket",
    "peer_uid",
    "resolve",
]

# How many connections may wait to be accepted. With multiprocessing's 1, 41 of 200 simultaneous TCP clients
# got in within 20 s. A TCP client that finds no room tries again after 1 s, so there has to be room also in a
# flood; the system may allow less. With AF_UNIX it waits for room, and a long queue would only delay it.
BACKLOGS = {"AF_UNIX": 128, "AF_INET": 1024, "AF_INET6": 1024}
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # this machine has no such address


def resolve(host: str, port: int, *, allow_remote: bool = True) -> list[Address]:
    """Return the addresses of a host, in the order in which they are to be tried.

    Blocks for as long as the system looks a name up; nothing can break that off. Raises :exc:`LinkError`
    where there is no such name, and where one of the addresses can be reached from, or is on, other machines
    without ``allow_remote``.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: the text cannot be a host's name
        reason = getattr(error, "strerror", None) or error
        text = (
            f"the host {host!r} cannot be looked up: {reason}; socket.host is the name or address of a host"
        )
        raise LinkError(text) from error
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = list(dict.fromkeys(Address(item[0].name, item[4]) for item in found if item[0] in families))
    if not allow_remote and (others := remote(addresses)):
        text = (
            f"the host {host!r} is {', '.join(spelled(each.where) for each in others)}, which is not of this "
            "machine alone: socket.allowRemote=True lets this process connect there, or be connected to"
        )
        raise LinkError(text)
    return addresses


def listen(where: str | tuple[Any, ...], family: str) -> Listener:
    """Return a listener at an address: a path for ``"AF_UNIX"``, (host, port) for ``"AF_INET"``.

    The listener removes no file. multiprocessing's own removal goes by the path alone; it would delete the
    socket of a process that has taken the path over. See :class:`SocketFile`. Raises OSError as ``bind``
    does.
    """
    from multiprocessing.connection import Listener  # late, see above

    listener = Listener(where, family, backlog=BACKLOGS[family])
    inner = listener._listener  # type: ignore[attr-defined]  # not in typeshed, same in 3.10 to 3.15
    if inner._unlink is not None:
        inner._unlink.cancel()
        inner._unlink = None
    return listener


def listening_socket(listener: Listener) -> socket.socket:
    """Return the socket of a listener, which goes on owning it."""
    sock: socket.socket = listener._listener._socket  # type: ignore[attr-defined]  # see listen()
    return sock


def listen_at_all(addresses: Iterable[Address]) -> list[Listener]:
    """Listen at each of the addresses that this machine has, or at none; see ``_core.addresses``.

    Raises :exc:`LinkError` where the machine has none of them. Raises OSError as ``bind`` does, with
    EADDRINUSE where an address is taken; the text names the address. After an error nothing is listened at.
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
    except BaseException:  # only this function has them yet
        for listener in listeners:
            listener.close()
        raise
    if not listeners:
        raise LinkError("; ".join(missing))
    return listeners


def _is_only_six(listener: Listener) -> bool:
    """Whether this listener at ``::`` takes IPv6 alone, which ``bindv6only`` decides.

    In our options ``::`` means both, so a second listener is needed then.
    """
    return bool(listening_socket(listener).getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def advice(number: int | None, where: tuple[Any, ...], *, listens: bool = False) -> str:
    """Return what a user can do about an error of ``connect``, or of ``bind`` (``listens``); or ``""``.

    The result is to follow the text of the error.
    """
    host, port = where[:2]
    if number == errno.EAFNOSUPPORT or (number == errno.EADDRNOTAVAIL and host == "::1"):
        return " (there is no IPv6 here; 0.0.0.0 and 127.0.0.1 are addresses of IPv4)"
    if number == errno.EADDRNOTAVAIL and listens:  # from a connect it means that no port is left
        return " (this machine has no such address; socket.onlyConnect waits for a server elsewhere)"
    if number == errno.EACCES and port < 1024 and listens:
        return " (a port below 1024 needs privileges; choose a socket.port from 1024 on)"
    if number == errno.EINVAL and host.lower().startswith("fe80:"):
        return f" (a link-local address needs its interface: {host}%eth0)"
    if number == errno.ENETUNREACH and (host.startswith("127.") or host == "::1"):
        return " (the loopback interface is down: ip link set lo up)"
    return ""


def connection_to(address: Address) -> Connection:
    """Return a connection to whatever listens at the address. Raises OSError as ``connect`` does."""
    from multiprocessing.connection import Client  # late, see above

    return Client(address.where, address.family)


def connection_from(sock: socket.socket) -> Connection:
    """Return a blocking Connection that takes over the descriptor of ``sock``; ``sock`` is detached."""
    from multiprocessing.connection import Connection  # late, see above

    # Without a timeout, whatever socket.setdefaulttimeout() was when the socket was made.
    sock.setblocking(True)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(kept(sock.detach))


def kept(call: Callable[..., int], *args: object) -> int:
    """Call a function that returns a new descriptor; returns that.

    If a signal handler raises right after the call, the descriptor is closed. Otherwise no code would know
    its number, and it would stay open.
    """
    numbers: list[int] = []
    try:
        numbers += itertools.starmap(call, (args,))  # stored before a signal handler can raise
    except BaseException:
        for number in numbers:
            os.close(number)
        raise
    return numbers[0]


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user id at the other end of an AF_UNIX socket; None where the system does not report it."""
    if sys.platform != "linux":
        return None
    ucred = struct.Struct("3i")  # pid, uid, gid
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
    uid: int = ucred.unpack(credentials)[1]
    return uid
