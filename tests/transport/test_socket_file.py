from __future__ import annotations

import os
import stat
import threading

import pytest

from ipevents._exceptions import AddressInUse, LinkError
from ipevents._platform.system import MAX_SOCKET_PATH_BYTES
from ipevents._transport import socket_file
from ipevents._transport.socket_file import SocketFile, bind, check_path, locked


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_socket_is_private_whatever_the_umask(path, umask):
    """D9: at no moment may another user connect."""
    before = os.umask(umask)
    try:
        with locked(path):
            listener, _file = bind(path)
    finally:
        os.umask(before)
    with listener:
        assert mode(path) == 0o600
        assert mode(path + ".lock") == 0o600
        assert sorted(os.listdir(os.path.dirname(path))) == ["s", "s.lock"]
        assert listener.address == path


def test_a_path_whose_place_others_may_take_is_refused(tmp_path):
    """D10: somebody who may write to a directory above it."""
    above = tmp_path / "open"
    (above / "mine").mkdir(parents=True, mode=0o700)
    above.chmod(0o777)
    with pytest.raises(LinkError, match=f"is not safe: other users may write to {above} "):
        check_path(str(above / "mine" / "s"))
    above.chmod(0o1777)
    check_path(str(above / "mine" / "s"))


def test_a_stale_socket_file_is_replaced(path):
    """B12: nobody listens at it any more."""
    with locked(path):
        old_listener, old = bind(path)
    old_listener.close()
    with locked(path):
        listener, new = bind(path)
    with listener:
        assert SocketFile.at(path, is_contested=True) == new
        assert old.path == new.path


def test_a_file_that_is_no_socket_is_left_alone(path):
    with open(path, "w") as file:
        file.write("precious")
    with locked(path), pytest.raises(AddressInUse, match="no socket"):
        bind(path)
    with open(path) as file:
        assert file.read() == "precious"
    assert sorted(os.listdir(os.path.dirname(path))) == ["s", "s.lock"]


def test_what_a_killed_process_left_while_binding_is_cleared(path):
    os.mkdir(path + ".new", 0o700)
    with open(path + ".new/s", "w"):
        pass
    with locked(path):
        listener, _file = bind(path)
    listener.close()
    assert sorted(os.listdir(os.path.dirname(path))) == ["s", "s.lock"]


def test_a_path_of_exactly_the_possible_length_can_be_bound(tmp_path):
    path = str(tmp_path / "d")
    path += "d" * (MAX_SOCKET_PATH_BYTES - 2 - len(path))
    os.mkdir(path)
    path += "/s"
    check_path(path)
    with locked(path):
        listener, file = bind(path)
    assert file.remove()
    listener.close()


def test_only_the_own_file_is_removed(path):
    with locked(path):
        listener, file = bind(path)
    os.rename(path, path + ".moved")
    with open(path, "w"):
        pass
    assert not file.remove()
    os.rename(path + ".moved", path)
    assert file.remove()
    assert not file.remove()
    listener.close()
    assert os.listdir(os.path.dirname(path)) == ["s.lock"]


def test_one_at_a_time_holds_the_lock(path, monkeypatch):
    monkeypatch.setattr(socket_file, "LOCK_SECONDS", 0.05)
    with locked(path), pytest.raises(LinkError, match="s.lock"), locked(path):
        pass
    with locked(path):
        pass


def test_who_waits_for_the_lock_gets_it(path):
    got = threading.Event()

    def wait():
        with locked(path):
            got.set()

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.is_set()
    thread.join()
    assert got.is_set()


def test_a_lock_that_is_a_link_is_not_followed(path, tmp_path):
    os.symlink(tmp_path / "elsewhere", path + ".lock")
    with pytest.raises(OSError, match="s.lock"), locked(path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_no_plain_file_is_refused(path):
    os.mkfifo(path + ".lock")
    with pytest.raises(LinkError, match="plain file"), locked(path):
        pass


@pytest.mark.parametrize("path", ["x" * 108, "", "\0abstract"])
def test_paths_that_no_socket_has(path):
    with pytest.raises(LinkError):
        check_path(path)
