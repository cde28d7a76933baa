from __future__ import annotations

import gc
import os
import socket
import stat

from ipevents._runtime.sockets import listen, peer_uid


def test_the_user_at_the_other_end_is_told_by_the_kernel():
    here, there = socket.socketpair()
    with here, there:
        assert peer_uid(here) == os.geteuid()


def test_a_listener_removes_no_file_by_itself(tmp_path):
    path = str(tmp_path / "s")
    listener = listen(path, "AF_UNIX")
    listener.close()
    del listener
    gc.collect()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
