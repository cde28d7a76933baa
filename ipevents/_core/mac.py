"""The one keyed hash of the package, for the handshake and for the keys derived from the tree's key.

It is BLAKE2b with a key and 256 bits of output. Its authors designed it as a MAC and a pseudorandom function
(RFC 7693, section 2.9). It needs no HMAC around it, because a hash of it cannot be extended. HMAC-SHA256
would do as well, but ``hashlib`` and ``hmac`` load OpenSSL, which takes a tenth of the time in which a child
starts. BLAKE2 is part of CPython on every system; ``hashlib.blake2b`` is the same class.
"""

from __future__ import annotations

import struct

try:
    # What ``hashlib.blake2b`` and ``hmac.compare_digest`` are in CPython 3.10 to 3.14. Both modules are
    # private and may move one day.
    from _blake2 import blake2b
    from _operator import _compare_digest as compare_digest
except ImportError:
    from hashlib import blake2b
    from hmac import compare_digest  # type: ignore[no-redef]  # the same function by another name

__all__ = ["MAC_BYTES", "blake2b", "compare_digest", "mac"]

MAC_BYTES = 32

_LENGTH = struct.Struct("!H")


def mac(key: bytes, *parts: bytes) -> bytes:
    """Return the MAC of ``parts`` under ``key``: MAC_BYTES bytes.

    The first part is a label that names the use, so that a MAC made for one use is worth nothing for another.
    Each part has less than 64 KiB. The length of each part is covered too, so that no two different lists of
    parts have the same MAC. Compare MACs with ``compare_digest``: how long that takes reveals nothing about
    them.
    """
    if len(key) > blake2b.MAX_KEY_SIZE:
        # HMAC hashes such keys as well, but then the key and its hash have the same MACs. ``person`` prevents
        # that.
        key = blake2b(key, person=b"ipevents longkey").digest()
    said = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return blake2b(said, key=key, digest_size=MAC_BYTES, person=b"ipevents mac 1").digest()
