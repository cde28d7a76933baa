"""What the kernel is told, and asked, to find out that a peer over TCP is dead. See ``_core/liveness.py``.

Not every system has all of it. What it lacks is left out: then a dead peer is noticed later, when the
kernel itself gives up.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import sys

from .._core.liveness import OnItsWay, keepalive

__all__ = ["SILENT", "keep_alive", "limit_receive", "limit_send", "on_its_way"]

# With these the kernel ends a connection whose peer does not answer.
SILENT = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
# Of Linux's struct tcp_info: tcpi_probes (byte 3), tcpi_unacked (24), tcpi_last_data_sent (44),
# tcpi_last_ack_recv (56), tcpi_rtt (68), and since Linux 4.6 tcpi_notsent_bytes (144). Times are in
# milliseconds, that of tcpi_rtt in microseconds.
_TCP_INFO = struct.Struct("=3xB20xI16xI8xI8xI72xI")
_TIMEVAL = struct.Struct("@ll")  # seconds, microseconds


def keep_alive(sock: socket.socket, dead_after: float) -> None:
    """Let the kernel ask the other end now and then while nothing is on its way, and end the connection.

    Without an answer that takes ``dead_after`` seconds; the thread that reads gets an OSError, see SILENT.
    """
    idle, interval, count = keepalive(dead_after)
    name = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    for option, value in ((name, idle), ("TCP_KEEPINTVL", interval), ("TCP_KEEPCNT", count)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def on_its_way(sock: socket.socket) -> OnItsWay | None:
    """Return what is on its way to the peer; None where the system does not say."""
    if sys.platform != "linux" or not hasattr(socket, "TCP_INFO"):
        return None
    found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(found) < _TCP_INFO.size:
        return None
    probes, in_flight, since_sent, since_acknowledged, round_trip, unsent = _TCP_INFO.unpack(found)
    return OnItsWay(in_flight, unsent, probes, since_sent / 1000, since_acknowledged / 1000, round_trip / 1e6)


def limit_send(sock: socket.socket, seconds: float) -> None:
    """Let a call that sends, and blocks, return after so long with what was sent.

    If that is nothing it raises BlockingIOError.
    """
    _limit(sock, socket.SO_SNDTIMEO, seconds)


def limit_receive(sock: socket.socket, seconds: float) -> None:
    """Let a call that receives raise BlockingIOError if nothing comes for so long; 0.0 for no limit."""
    _limit(sock, socket.SO_RCVTIMEO, seconds)


def _limit(sock: socket.socket, option: int, seconds: float) -> None:
    part, whole = math.modf(seconds)
    sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(whole), int(part * 1e6)))
