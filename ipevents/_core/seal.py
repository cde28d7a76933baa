"""What proves that a frame comes from the other end of a handshake, whole and in its turn.

Over TCP somebody else may sit between the two ends. He can pass the handshake on, but he does not know the
key. So both ends derive a key for each direction from the key of the tree and from all that the handshake
has said, and each frame carries its number and a seal: a MAC over the two. The receiver checks it before it
unpickles anything. A frame that was changed, repeated, left out, moved, or sent back to where it came from
has a wrong seal or a wrong number.

Large buffers follow their frame as they are. They have a seal of their own: the one of the frame has to be
checked first, because the frame tells how long they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from .._exceptions import Forged
from .mac import blake2b, compare_digest, mac

if TYPE_CHECKING:
    from typing import Any

SEAL_BYTES = 16  # the chance to guess one is 2 ** -128, and a wrong one ends the connection
_NUMBER = struct.Struct("!Q")
PREFIX_BYTES = _NUMBER.size + SEAL_BYTES  # what a sealed frame begins with
_FRAME, _BUFFERS = b"frame", b"buffers"


class DirectionKeys(NamedTuple):
    """The keys of one session, as one end has them."""

    sends: bytes
    receives: bytes


def direction_keys(key: bytes, transcript: bytes, *, is_client: bool) -> DirectionKeys:
    """Return the keys for the two directions of a session.

    ``transcript`` is a hash of everything that was sent in the handshake: it has both incarnations, both
    nonces and both roles in it, so it is another one for each connection.
    """
    up = mac(key, b"session, client to server", transcript)
    down = mac(key, b"session, server to client", transcript)
    return DirectionKeys(up, down) if is_client else DirectionKeys(down, up)


class Seals:
    """Makes and checks the seals of one direction. Used by one thread at a time."""

    def __init__(self, key: bytes) -> None:
        # Each seal begins with a copy of these: half the time of a keyed hash from nothing (CPython 3.11).
        self._frame = blake2b(_FRAME, key=key, digest_size=SEAL_BYTES, person=b"ipevents seal 1")
        self._buffers = blake2b(_BUFFERS, key=key, digest_size=SEAL_BYTES, person=b"ipevents seal 1")

    def prefix(self, number: int, frame: bytes | bytearray | memoryview) -> bytes:
        """Return what is written before a frame: its number, and a seal of the two."""
        written = _NUMBER.pack(number)
        made = self._frame.copy()
        made.update(written)
        made.update(frame)
        return written + made.digest()

    def of_buffers(self, number: int, buffers: Iterable[Any]) -> bytes:
        """Return the seal of the large buffers that follow the frame with this number.

        The frame tells how long each of them is, so where one ends and the next begins needs no seal.
        """
        made = self._buffers.copy()
        made.update(_NUMBER.pack(number))
        for buffer in buffers:
            made.update(buffer)
        return made.digest()

    def opened(self, number: int, sealed: bytes | bytearray) -> memoryview:
        """Return the frame in what was written as the frame with this number, prefix and all.

        Raises Forged if it is not that. How long this takes tells nothing about the right seal.
        """
        frame = memoryview(sealed)[PREFIX_BYTES:]
        if not compare_digest(self.prefix(number, frame), sealed[:PREFIX_BYTES]):
            raise Forged(f"frame {number} has a wrong seal or number: something is between the two ends")
        return frame

    def check_buffers(self, number: int, buffers: Iterable[Any], seal: bytes) -> None:
        """Raise Forged if this is not the seal of the buffers. As for ``opened``."""
        if not compare_digest(self.of_buffers(number, buffers), seal):
            raise Forged(f"buffers of frame {number} have a wrong seal: something is between the two ends")
