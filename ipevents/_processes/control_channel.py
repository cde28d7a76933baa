"""The control channel: a second connection between a parent and a child, which waits for no listener.

The two supervisors read it, so a record gets through while the link is full, or while the reader of the link
waits for a listener that does not return. It is a pair of sockets, and the child gets its end at its start:
so it needs no name and no handshake, and is there before anything else.

Only the thread of the supervisor reads, writes and closes it. Other threads ``put`` records, and ring for
that thread. Nothing in here blocks.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from .._core.control_checks import check_channel
from .._core.messages import KIND, Record
from .._core.wire import HEADER_BYTES, decode, frame_size, parts
from .._exceptions import ProtocolError

_LARGEST_FRAME = 1 << 20
_READ_BYTES = 64 * 1024
_AT_ONCE = int(socket.MSG_DONTWAIT)
_SEND_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

Handler = Callable[[int, dict[str, Any]], None]


class ControlChannel:
    """One end of a control channel.

    ``on_record(kind, items)`` is called for each record that comes, ``on_failed(error)`` once for what cannot
    come; that ends the channel. ``is_to_parent``: the other end is the parent, otherwise a child.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_record: Handler,
        on_failed: Callable[[ProtocolError], object],
        *,
        is_to_parent: bool,
    ) -> None:
        self._socket = sock
        self._on_record = on_record
        self._on_failed = on_failed
        self._is_to_parent = is_to_parent
        self._waiting: deque[Record] = deque()
        self._rest = memoryview(b"")  # of the frame that is being written
        self._received = b""
        self.is_over = False  # the other end has closed it, or it was closed here

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    @property
    def has_more(self) -> bool:
        """Whether something waits to be written, as soon as the kernel takes it."""
        return bool(self._rest) or bool(self._waiting)

    def put(self, record: Record) -> None:
        """Have a record written. In any thread, which rings for the supervisor after it."""
        self._waiting.append(record)

    def write(self) -> None:
        """Write what waits, as far as the kernel takes it."""
        try:
            while not self.is_over and self.has_more:
                if not self._rest:
                    self._rest = memoryview(b"".join(parts([self._waiting.popleft()])))
                self._rest = self._rest[self._socket.send(self._rest, _SEND_AT_ONCE) :]
        except BlockingIOError:
            return
        except OSError:  # the other end is closed: the process there ends
            self.is_over = True

    def read(self) -> None:
        """Handle the records that have come."""
        try:
            self._read()
        except ProtocolError as exc:
            self.is_over = True
            self._on_failed(exc)

    def _read(self) -> None:
        """Handle the records that have come. Raises ProtocolError for what cannot come here."""
        try:
            chunk = self._socket.recv(_READ_BYTES, _AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.is_over = True
            return
        self._received += chunk
        while len(self._received) >= HEADER_BYTES:
            end = HEADER_BYTES + frame_size(self._received, 0, _LARGEST_FRAME)
            if len(self._received) < end:
                return
            frame, self._received = self._received[HEADER_BYTES:end], self._received[end:]
            for record in decode(frame):
                items = check_channel(record, is_parent=self._is_to_parent)
                self._on_record(record[KIND], items)

    def close(self) -> None:
        """Close it. In the thread of the supervisor, or where that thread is over."""
        self.is_over = True
        self._socket.close()

    def abandon(self) -> None:
        """Close our copy of the descriptor in a process made by ``os.fork()``."""
        self._socket.close()
