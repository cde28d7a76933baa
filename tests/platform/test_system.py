from __future__ import annotations

import socket

import pytest

from ipevents._platform.system import MAX_SOCKET_PATH_BYTES


def test_a_socket_path_may_be_so_long_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    folder = "/tmp/" + "x" * 20
    for size, works in ((MAX_SOCKET_PATH_BYTES, True), (MAX_SOCKET_PATH_BYTES + 1, False)):
        path = folder + "y" * (size - len(folder))
        with socket.socket(socket.AF_UNIX) as sock:
            if works:
                with pytest.raises(FileNotFoundError):  # the system looks for it
                    sock.connect(path)
            else:
                with pytest.raises(OSError, match="too long"):
                    sock.connect(path)
