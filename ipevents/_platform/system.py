"""Limits of this operating system."""

from __future__ import annotations

import sys

__all__ = ["MAX_SOCKET_PATH_BYTES"]

# The longest path of an AF_UNIX socket: the room in sockaddr_un, less the final zero byte.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
