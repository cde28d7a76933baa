"""What this operating system allows."""

from __future__ import annotations

import sys

__all__ = ["MAX_SOCKET_PATH_BYTES"]

# The path of an AF_UNIX socket: what sockaddr_un has room for, without the final zero byte.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
