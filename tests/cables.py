"""TCP connections within this process, and a cable that can be cut: nothing arrives any more."""

from __future__ import annotations

import ctypes
import socket
import struct

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # of Linux
_RETURN_NOTHING = struct.pack("=HBBI", 6, 0, 0, 0)  # a filter of one instruction: keep 0 bytes of a segment


def tcp_pair(receive_bytes=None):
    """Two ends of a TCP connection; the second has so small a buffer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if receive_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


def cut(*ends):
    """Let the kernel drop whatever comes to these sockets, before it looks at it.

    Neither end hears of that, as when a cable is cut or a machine is off.
    """
    code = ctypes.create_string_buffer(_RETURN_NOTHING, len(_RETURN_NOTHING))
    program = struct.pack("@HP", 1, ctypes.addressof(code))
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def mend(*ends):
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
