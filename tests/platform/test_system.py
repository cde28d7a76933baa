"""Limits of this operating system, as it says itself."""

from __future__ import annotations

import os
import socket

import pytest

from ipevents._platform.system import MAX_SOCKET_PATH_BYTES


@pytest.mark.parametrize(("more", "character"), [(0, "p"), (1, "p"), (0, "ä")])
def test_a_path_of_so_many_bytes_is_the_longest_that_a_socket_may_have(place, more, character):
    begin = f"{place}/"
    room = MAX_SOCKET_PATH_BYTES - len(begin)
    name = character * (room // len(character.encode())) + "p" * (room % len(character.encode())) + "p" * more
    path = begin + name
    assert len(os.fsencode(path)) == MAX_SOCKET_PATH_BYTES + more
    with socket.socket(socket.AF_UNIX) as sock:
        if more:
            with pytest.raises(OSError, match="too long"):
                sock.bind(path)
        else:
            sock.bind(path)
            assert os.path.exists(path)
