"""The one keyed hash of the package, for the handshake and for the keys derived from the tree's key.

It is BLAKE2b with a key: a MAC and a pseudorandom function by design (RFC 7693, section 2.9), of 256
bits, without HMAC's two passes because it cannot be extended. Not HMAC-SHA256 for one reason: ``hashlib``
and ``hmac`` load OpenSSL, a tenth of the time in which a child starts. BLAKE2 is CPython's own code on
every system, the very class that ``hashlib.blake2b`` names.
"""

from __future__ import annotations

import struct

try:
    # Behind ``hashlib.blake2b`` and ``hmac.compare_digest`` in CPython 3.10 to 3.14; as private modules
    # they may move one day.
    from _blake2 import blake2b
    from _operator import _compare_digest as compare_digest
except ImportError:
    from hashlib import blake2b
    from hmac import compare_digest  # type: ignore[no-redef]  # the same function, of the other name

__all__ = ["MAC_BYTES", "compare_digest", "mac"]

MAC_BYTES = 32

_LENGTH = struct.Struct("!H")


def mac(key: bytes, *parts: bytes) -> bytes:
    """Return the 32-byte MAC of ``parts``, of which the first names the use. Each has less than 64 KiB.

    Every part carries its length, so that no two different lists read the same. Compare the result with
    ``compare_digest``, whose time tells nothing.
    """
    if len(key) > blake2b.MAX_KEY_SIZE:
        # As HMAC does, but marked: such a key and its hash are different keys.
        key = blake2b(key, person=b"ipevents longkey").digest()
    said = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return blake2b(said, key=key, digest_size=MAC_BYTES, person=b"ipevents mac 1").digest()
