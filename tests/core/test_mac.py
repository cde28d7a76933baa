from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from ipevents._core.mac import MAC_BYTES, compare_digest, mac

KEY = b"k" * 32


def test_a_mac_is_keyed_blake2b_of_the_parts_each_behind_its_length():
    whole = b"\0\4what\0\0\0\2me"
    expected = hashlib.blake2b(whole, key=KEY, digest_size=32, person=b"ipevents mac 1").digest()
    assert mac(KEY, b"what", b"", b"me") == expected
    assert len(expected) == MAC_BYTES


def test_no_two_lists_of_parts_read_the_same():
    lists = ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc"))
    assert len({mac(KEY, *parts) for parts in lists}) == len(lists)


@pytest.mark.parametrize("size", [16, 63, 64, 65, 4096])
def test_each_byte_of_a_key_counts(size):
    key = bytes(size)
    others = [bytes(size - 1) + b"x", b"x" + bytes(size - 1), key + b"\0"]
    assert len({mac(each, b"use") for each in (key, *others)}) == 4


def test_a_long_key_is_another_one_than_its_hash():
    key = b"k" * 100
    assert mac(key, b"use") != mac(hashlib.blake2b(key).digest(), b"use")


def test_digests_are_compared_as_hmac_does():
    assert compare_digest(b"a" * 32, b"a" * 32)
    assert not compare_digest(b"a" * 32, b"a" * 31 + b"b")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("missing", ["_blake2", "_operator"])
def test_without_the_private_modules_the_public_ones_give_the_same(missing):
    code = (
        "import hashlib, hmac, sys; "  # before it is hidden: it is there, under whatever name
        f"sys.modules[{missing!r}] = None; "
        "from ipevents._core import mac; "
        "assert mac.compare_digest is hmac.compare_digest; "
        "print(mac.mac(b'k' * 32, b'use').hex())"
    )
    assert run(code) == mac(KEY, b"use").hex()
