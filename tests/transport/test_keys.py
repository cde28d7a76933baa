from __future__ import annotations

import errno
import os
import pickle
import stat
import subprocess
import sys

import pytest
from starters import STARTERS, in_processes, in_threads

from ipevents import _exceptions as exceptions
from ipevents._transport import keys
from ipevents._transport.keys import derive, tree_key

ENVIRONMENT = "IPEVENTS_AUTHKEY"
SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _own_world(monkeypatch, tmp_path):
    monkeypatch.setattr(keys, "_environment_key", None)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "state" / "ipevents" / "key"


def as_another_user(monkeypatch):
    """To the code under test, everything on this disk belongs to somebody else."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(keys.os, "geteuid", lambda: uid)


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# Where the key comes from.


def test_the_option_comes_first(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    assert tree_key(b"x" * 16) == b"x" * 16


def test_the_environment_comes_next_and_makes_no_file(monkeypatch, key_file):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    assert tree_key(None) == SECRET.encode()
    assert not key_file.exists()


def test_the_key_is_taken_out_of_the_environment_and_remembered(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    first = tree_key(None)
    assert ENVIRONMENT not in os.environ
    assert tree_key(None) == first


def test_the_key_is_taken_out_of_the_environment_also_if_an_option_wins(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    tree_key(b"x" * 16)
    assert ENVIRONMENT not in os.environ


def test_a_child_started_afterwards_does_not_inherit_the_key(monkeypatch):
    """D12: the key is not in the environment of children."""
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    tree_key(None)
    code = "import os; print('IPEVENTS_AUTHKEY' in os.environ)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_newer_key_in_the_environment_replaces_the_remembered_one(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    tree_key(None)
    monkeypatch.setenv(ENVIRONMENT, SECRET + "!")
    assert tree_key(None) == (SECRET + "!").encode()


@pytest.mark.parametrize("short", ["", "fifteen bytes!!"])
def test_a_short_key_in_the_environment_is_refused_every_time_and_not_shown(monkeypatch, short, key_file):
    monkeypatch.setenv(ENVIRONMENT, short)
    for _ in range(2):
        with pytest.raises(exceptions.OptionsError, match="at least 16 bytes") as caught:
            tree_key(None)
        assert not short or short not in str(caught.value)
    assert not key_file.exists()


def test_threads_that_read_the_environment_at_once_get_the_same_key(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    assert in_threads(lambda: tree_key(None)) == [SECRET.encode()] * STARTERS


# The key file.


def test_the_key_file_is_made_once_and_read_afterwards(key_file):
    key = tree_key(None)
    assert len(key) == 32
    assert tree_key(None) == key
    assert bytes.fromhex(key_file.read_text()) == key


def test_only_the_user_may_enter_what_is_made(key_file):
    tree_key(None)
    made = [key_file, key_file.parent, key_file.parent.parent]
    assert [mode(path) for path in made] == [0o600, 0o700, 0o700]


def test_the_umask_neither_opens_nor_closes_the_key_file(key_file):
    for umask in (0, 0o077, 0o777):
        before = os.umask(umask)
        try:
            tree_key(None)
        finally:
            os.umask(before)
        assert mode(key_file) == 0o600
        key_file.unlink()


def test_nothing_but_the_key_is_left_in_its_directory(key_file):
    tree_key(None)
    assert os.listdir(key_file.parent) == ["key"]


def test_each_home_has_its_own_key(monkeypatch, tmp_path):
    first = tree_key(None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert tree_key(None) != first


@pytest.mark.parametrize("configured", [None, "", "relative/state"])
def test_without_a_state_directory_the_file_is_below_the_home(monkeypatch, tmp_path, configured):
    if configured is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", configured)
    monkeypatch.setenv("HOME", str(tmp_path))
    key = tree_key(None)
    assert bytes.fromhex((tmp_path / ".local/state/ipevents/key").read_text()) == key


@pytest.mark.parametrize("home", ["/nonexistent/home", "relative", "/dev/null"])
def test_without_a_usable_home_the_error_names_the_option(monkeypatch, home):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", home)
    with pytest.raises(exceptions.KeyFileError, match=r"no home directory .*socket\.authkey"):
        tree_key(None)
    assert not os.path.exists("/nonexistent/home")


def test_threads_that_start_at_once_end_with_the_same_key(key_file):
    assert len(set(in_threads(lambda: tree_key(None)))) == 1
    assert os.listdir(key_file.parent) == ["key"]


def test_processes_that_start_at_once_end_with_the_same_key(key_file):
    assert set(in_processes("print(tree_key(None).hex())")) == {key_file.read_text()}
    assert os.listdir(key_file.parent) == ["key"]


def test_a_starter_that_comes_second_takes_the_key_of_the_first(key_file):
    first = tree_key(None)
    at = os.open(key_file.parent, os.O_RDONLY)
    try:
        keys._publish_key(at)
    finally:
        os.close(at)
    assert tree_key(None) == first
    assert os.listdir(key_file.parent) == ["key"]


def refused(match: str) -> None:
    with pytest.raises(exceptions.KeyFileError, match=match) as caught:
        tree_key(None)
    for way_out in ("XDG_STATE_HOME", "socket.authkey", ENVIRONMENT, "useSocket=False"):
        assert way_out in str(caught.value)


def test_a_symbolic_link_in_place_of_the_file_is_refused(key_file, tmp_path):
    """D10: a link that somebody has put there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("ab" * 32)
    elsewhere.chmod(0o600)
    tree_key(None)
    key_file.unlink()
    key_file.symlink_to(elsewhere)
    refused("symbolic link")


def test_a_symbolic_link_to_nowhere_is_refused_and_makes_nothing(key_file, tmp_path):
    tree_key(None)
    key_file.unlink()
    key_file.symlink_to(tmp_path / "nowhere")
    refused("symbolic link")
    assert not (tmp_path / "nowhere").exists()


def test_a_symbolic_link_in_place_of_the_directory_is_refused(key_file, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    key_file.parent.parent.mkdir()
    key_file.parent.symlink_to(tmp_path / "elsewhere")
    refused("symbolic link")
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("bits", [0o640, 0o620, 0o604, 0o602, 0o610])
def test_a_file_that_lets_others_in_is_refused(key_file, bits):
    tree_key(None)
    key_file.chmod(bits)
    refused(f"{bits:04o} lets other users in")


@pytest.mark.parametrize("bits", [0o770, 0o755, 0o711, 0o1777])
def test_a_directory_that_lets_others_in_is_refused(key_file, bits):
    tree_key(None)
    key_file.parent.chmod(bits)
    refused("lets other users in")


def test_a_directory_above_that_others_may_write_to_is_refused(key_file):
    """D10: they could put another key file in its place."""
    tree_key(None)
    key_file.parent.parent.chmod(0o777)
    refused(f"other users may write to {key_file.parent.parent}")


def test_a_file_of_another_user_is_refused(key_file, monkeypatch):
    """D10: a file that somebody has put there."""
    tree_key(None)
    as_another_user(monkeypatch)
    refused("belongs to user")


def test_a_fifo_is_refused_and_nobody_waits_for_its_writer(key_file):
    tree_key(None)
    key_file.unlink()
    os.mkfifo(key_file, 0o600)
    refused("not a regular file")


def test_a_directory_in_place_of_the_file_is_refused(key_file):
    tree_key(None)
    key_file.unlink()
    key_file.mkdir(mode=0o700)
    refused("not a regular file")


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31, "ab" * 33, "zz" * 32, "ab" * 1000, "\u00e4" * 64])
def test_a_file_that_holds_no_key_is_refused_without_being_quoted(key_file, text):
    tree_key(None)
    key_file.write_text(text, encoding="utf-8")
    with pytest.raises(exceptions.KeyFileError, match="32 bytes in hex") as caught:
        tree_key(None)
    assert len(text) < 3 or text not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_state_directory_that_cannot_be_made_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    refused("not a directory")


def test_a_state_directory_behind_a_dangling_link_is_refused(monkeypatch, tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "dangling"))
    refused("No such file")


def test_a_file_system_without_links_is_refused_and_left_clean(key_file, monkeypatch):
    def link(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(keys.os, "link", link)
    refused("not permitted")
    assert os.listdir(key_file.parent) == []


# derive().


def test_each_purpose_has_its_own_key():
    """D13: what is signed for one purpose is of no use for another."""
    key = b"k" * 32
    derived = {derive(key, purpose) for purpose in (b"", b"server", b"client")}
    assert len(derived | {key}) == 4
    assert {len(each) for each in derived} == {32}


def test_the_same_key_and_purpose_derive_the_same_in_every_process():
    expected = "14cc3588e7dbb24dfe74c15ea812a3299a79bc9fb7d6295e126880619287a84c"
    assert derive(b"k" * 16, b"x").hex() == expected


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="this system does not list a process' descriptors")
def test_no_descriptor_is_left_open():
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        tree_key(None)
    assert len(os.listdir("/dev/fd")) == before


def test_key_file_errors_survive_pickling():
    error = keys._refused("/x", "why")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
