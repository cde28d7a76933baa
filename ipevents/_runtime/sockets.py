"""Listening sockets and connections as the library wants them: who may connect, who blocks, who is there."""

from __future__ import annotations

import socket
import struct
import sys
from multiprocessing.connection import Connection, Listener

__all__ = ["connection_from", "listen", "peer_uid"]

BACKLOG = 128  # multiprocessing's 1 let 41 of 200 simultaneous TCP clients in within 20 s


def listen(address: str | tuple[str, int], family: str) -> Listener:
    """Return a listener at ``address``: a path for ``"AF_UNIX"``, (host, port) for ``"AF_INET"``.

    It removes no file: multiprocessing's own removal, by path alone, would delete the socket of
    whoever took the path over. See :class:`SocketFile`. Raises OSError as ``bind`` does.
    """
    listener = Listener(address, family, backlog=BACKLOG)
    inner = listener._listener  # type: ignore[attr-defined]  # not in typeshed, same in 3.10 to 3.14
    if inner._unlink is not None:
        inner._unlink.cancel()
        inner._unlink = None
    return listener


def connection_from(sock: socket.socket) -> Connection:
    """Return a blocking Connection that owns the descriptor of ``sock``, which is detached."""
    # Blocking for ever, whatever socket.setdefaulttimeout() said when the socket was made.
    sock.setblocking(True)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(sock.detach())


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user at the other end of an AF_UNIX socket, or None where the system does not tell."""
    if sys.platform != "linux":
        return None
    ucred = struct.Struct("3i")  # pid, uid, gid
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
    uid: int = ucred.unpack(credentials)[1]
    return uid
