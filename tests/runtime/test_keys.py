from __future__ import annotations

import errno
import fcntl
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ipevents import _exceptions as exceptions
from ipevents._runtime import keys
from ipevents._runtime.keys import PrivateDirectory, derive, sweep, tree_key

ENVIRONMENT = "IPEVENTS_AUTHKEY"
SECRET = "correct horse battery staple"
STARTERS = 8


@pytest.fixture(autouse=True)
def short_base():
    """An own short place for directories: tmp_path is too long for the path of a socket."""
    base = tempfile.mkdtemp(prefix="k-", dir="/tmp")
    yield Path(base)
    for root, names, files in os.walk(base, topdown=False):
        for name in files:
            os.unlink(os.path.join(root, name))
        for name in names:
            path = os.path.join(root, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    os.rmdir(base)


@pytest.fixture(autouse=True)
def _own_world(monkeypatch, tmp_path, short_base):
    monkeypatch.setattr(keys, "_environment_key", None)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short_base))
    monkeypatch.setattr(keys, "_FALLBACK_PLACE", str(short_base))  # never sweep the machine's own


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "state" / "ipevents" / "key"


def as_another_user(monkeypatch):
    """To the code under test, everything on this disk belongs to somebody else."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(keys.os, "geteuid", lambda: uid)


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def in_threads(function):
    """Run ``function`` in several threads at the same moment; return what each returned."""
    barrier = threading.Barrier(STARTERS)
    results = []

    def run():
        barrier.wait()
        results.append(function())

    threads = [threading.Thread(target=run) for _ in range(STARTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == STARTERS
    return results


def started(code: str, count: int) -> list[subprocess.Popen[str]]:
    """Start processes that stand right before ``code`` until they are released."""
    program = f"from ipevents._runtime.keys import *\nprint(end='+', flush=True)\ninput()\n{code}"
    root = str(Path(__file__).resolve().parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, "TMPDIR": tempfile.gettempdir()},
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.read(1) == "+"
    return processes


def release(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def in_processes(code: str) -> list[str]:
    """Run ``code`` in several processes, let go at the same moment; return what each printed."""
    processes = started(code, STARTERS)
    release(processes)
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * STARTERS
    return outputs


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
    for umask in (0, 0o077, 0o177):
        before = os.umask(umask & 0o077)
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
    assert "socket.authkey" in str(caught.value)


def test_a_symbolic_link_in_place_of_the_file_is_refused(key_file, tmp_path):
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


def test_a_file_of_another_user_is_refused(key_file, monkeypatch):
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
    key = b"k" * 32
    derived = {derive(key, purpose) for purpose in (b"", b"server", b"client")}
    assert len(derived | {key}) == 4
    assert {len(each) for each in derived} == {32}


def test_the_same_key_and_purpose_derive_the_same_in_every_process():
    expected = "14cc3588e7dbb24dfe74c15ea812a3299a79bc9fb7d6295e126880619287a84c"
    assert derive(b"k" * 16, b"x").hex() == expected


# Private directories.


def abandoned() -> str:
    """What a killed process leaves: the directory with its files, and nobody who holds the lock."""
    directory = PrivateDirectory.make()
    Path(directory.path, "socket").touch()
    directory.abandon()
    return directory.path


def test_a_private_directory_is_ours_alone_and_named_after_us(short_base):
    directory = PrivateDirectory.make()
    path = Path(directory.path)
    assert path.parent == short_base
    assert path.name.startswith(f"ipevents-{os.geteuid()}-")
    assert mode(path) == 0o700
    directory.close()


def test_closing_removes_the_directory_with_its_files_and_may_be_repeated(short_base):
    directory = PrivateDirectory.make()
    Path(directory.path, "socket").touch()
    directory.close()
    directory.close()
    assert os.listdir(short_base) == []


def test_threads_that_close_at_once_close_it_once(short_base):
    directory = PrivateDirectory.make()
    in_threads(directory.close)
    assert os.listdir(short_base) == []


def test_a_closed_directory_has_no_descriptor():
    directory = PrivateDirectory.make()
    os.fstat(directory.fileno())
    directory.close()
    with pytest.raises(ValueError, match="closed"):
        directory.fileno()


def test_the_descriptor_is_not_inherited():
    directory = PrivateDirectory.make()
    assert not os.get_inheritable(directory.fileno())
    directory.close()


def test_the_state_is_in_the_repr():
    directory = PrivateDirectory.make()
    assert repr(directory) == f"<PrivateDirectory {directory.path} open>"
    directory.close()
    assert repr(directory) == f"<PrivateDirectory {directory.path} closed>"


def test_closing_spares_what_somebody_put_in_its_place(short_base):
    directory = PrivateDirectory.make()
    os.rename(directory.path, short_base / "moved")
    os.mkdir(directory.path)
    Path(directory.path, "theirs").touch()
    directory.close()
    assert os.listdir(directory.path) == ["theirs"]


def test_closing_what_is_gone_already_is_no_error():
    directory = PrivateDirectory.make()
    os.rmdir(directory.path)
    directory.close()


def test_abandoning_removes_nothing_and_frees_the_lock():
    path = abandoned()
    assert os.listdir(path) == ["socket"]
    assert sweep() == [path]


def test_abandoning_a_copy_of_the_descriptor_keeps_the_lock_of_the_other():
    directory = PrivateDirectory.make()
    os.close(os.dup(directory.fileno()))  # what a forked child does to its copy
    assert sweep() == []
    directory.close()


def test_a_process_that_did_not_make_it_removes_nothing_by_closing(monkeypatch):
    directory = PrivateDirectory.make()
    with monkeypatch.context() as forked:
        forked.setattr(keys.os, "getpid", lambda: 1)
        directory.close()
    assert sweep() == [directory.path]


# Where they are made.


def test_the_runtime_directory_is_preferred(monkeypatch, short_base):
    runtime = short_base / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == runtime
    directory.close()


@pytest.mark.parametrize("bits", [0o755, 0o770, 0o1777])
def test_a_runtime_directory_that_lets_others_in_is_not_used(monkeypatch, short_base, bits):
    runtime = short_base / "run"
    runtime.mkdir()
    runtime.chmod(bits)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


@pytest.mark.parametrize("runtime", ["", "relative", "/nonexistent/run", "/dev/null"])
def test_a_runtime_directory_that_is_none_is_not_used(monkeypatch, short_base, runtime):
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_the_runtime_directory_of_another_user_is_not_used(monkeypatch, short_base):
    runtime = short_base / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    as_another_user(monkeypatch)
    assert str(runtime) not in keys._bases()


def test_a_place_that_is_too_long_for_sockets_is_passed_over(monkeypatch, short_base):
    long = short_base / ("long" * 20)
    long.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_place_where_others_may_rename_our_directory_is_passed_over(monkeypatch, short_base, bits):
    writable = short_base / "tmp"
    writable.mkdir()
    writable.chmod(bits)
    monkeypatch.setattr(tempfile, "tempdir", str(writable))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_a_place_of_another_user_is_passed_over(monkeypatch, short_base):
    assert keys._unfit(str(short_base)) == ""
    status = os.stat_result((0o40700, 0, 0, 2, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(keys.os, "stat", lambda path: status)
    assert keys._unfit(str(short_base)) == f"it belongs to user {status.st_uid}"


def test_a_place_for_everybody_is_used_if_it_is_sticky(short_base):
    short_base.chmod(0o1777)
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_without_any_place_the_error_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setattr(keys, "_bases", lambda: ["/nonexistent/place", "/" + "x" * 90, "/dev/null"])
    with pytest.raises(exceptions.WorkerRefused, match=r"/nonexistent/place: No such file.*set TMPDIR"):
        PrivateDirectory.make()


def test_a_socket_with_a_name_of_the_full_length_fits(short_base):
    import socket

    longest = keys._PATH_BYTES - len(str(short_base)) - 1 - 1 - len(keys._prefix()) - keys._RANDOM_BYTES
    base = short_base / ("x" * longest)
    base.mkdir(mode=0o700)
    assert keys._unfit(str(base)) == ""
    assert keys._unfit(f"{base}x") != ""
    directory = keys._make_locked(str(base))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.join(directory.path, "n" * keys.MAX_NAME_BYTES))
    directory.close()


# Sweeping.


def test_sweep_removes_what_the_dead_left_and_spares_the_living(short_base):
    living = PrivateDirectory.make()
    dead = sorted(abandoned() for _ in range(3))
    assert sorted(sweep()) == dead
    assert os.listdir(short_base) == [os.path.basename(living.path)]
    living.close()


def test_sweep_removes_what_a_killed_process_left(short_base):
    (process,) = started("directory = PrivateDirectory.make()\nprint(directory.path, flush=True)\ninput()", 1)
    release([process])
    path = process.stdout.readline().rstrip()
    assert os.path.dirname(path) == str(short_base)
    assert sweep() == []
    process.kill()
    process.communicate()
    assert sweep() == [path]
    assert os.listdir(short_base) == []


def test_sweep_follows_no_symbolic_link(short_base, tmp_path):
    (tmp_path / "precious").touch()
    link = short_base / f"ipevents-{os.geteuid()}-evil"
    link.symlink_to(tmp_path)
    assert sweep() == []
    assert link.is_symlink()
    assert (tmp_path / "precious").exists()


def test_sweep_removes_a_link_inside_and_not_what_it_points_at(tmp_path):
    (tmp_path / "precious").touch()
    path = abandoned()
    Path(path, "link").symlink_to(tmp_path / "precious")
    assert sweep() == [path]
    assert (tmp_path / "precious").exists()


def test_sweep_spares_what_another_user_made_under_our_name(short_base, monkeypatch):
    as_another_user(monkeypatch)
    theirs = short_base / f"{keys._prefix()}x"
    theirs.mkdir(mode=0o700)
    assert sweep() == []
    assert theirs.is_dir()


def test_sweep_spares_files_and_other_names(short_base):
    (short_base / f"ipevents-{os.geteuid()}-file").touch()
    (short_base / "ipevents-99999999-x").mkdir()
    (short_base / "other").mkdir()
    assert sweep() == []
    assert len(os.listdir(short_base)) == 3


def test_sweep_spares_a_directory_with_a_directory_in_it():
    path = abandoned()
    os.mkdir(os.path.join(path, "not ours"))
    assert sweep() == []
    assert os.path.isdir(os.path.join(path, "not ours"))


def test_sweep_goes_on_where_a_place_cannot_be_listed(monkeypatch, short_base):
    path = abandoned()
    monkeypatch.setattr(keys, "_bases", lambda: ["/nonexistent/place", str(short_base)])
    assert sweep() == [path]


# Makers and sweepers that meet.


def test_a_directory_swept_before_it_is_opened_is_made_again(monkeypatch, short_base):
    made = []
    make = tempfile.mkdtemp

    def swept_at_once(**kwargs):
        path = make(**kwargs)
        if not made:
            assert sweep() == [path]
        made.append(path)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    directory = PrivateDirectory.make()
    assert (len(made), directory.path) == (2, made[1])
    directory.close()


def test_a_directory_swept_before_it_is_locked_is_made_again(monkeypatch, short_base):
    lock = keys._lock
    swept = []

    def swept_first(directory):
        if not swept:
            monkeypatch.setattr(keys, "_lock", lock)
            swept.extend(sweep())
        return lock(directory)

    monkeypatch.setattr(keys, "_lock", swept_first)
    directory = PrivateDirectory.make()
    assert len(swept) == 1
    assert os.listdir(short_base) == [os.path.basename(directory.path)]
    directory.close()


def test_a_directory_locked_by_a_sweeper_is_left_to_it(monkeypatch, short_base):
    make = tempfile.mkdtemp
    sweeping = []

    def locked_at_once(**kwargs):
        path = make(**kwargs)
        if not sweeping:
            sweeping.append(os.open(path, os.O_RDONLY))
            fcntl.flock(sweeping[0], fcntl.LOCK_EX)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", locked_at_once)
    directory = PrivateDirectory.make()
    os.close(sweeping[0])
    assert sweep() != [directory.path]
    assert os.listdir(short_base) == [os.path.basename(directory.path)]
    directory.close()


def test_makers_and_sweepers_at_once_lose_no_living_directory(short_base):
    def make_and_sweep():
        lost = []
        for _ in range(30):
            directory = PrivateDirectory.make()
            sweep()
            with open(os.path.join(directory.path, "socket"), "w"):
                pass
            sweep()
            if os.listdir(directory.path) != ["socket"]:
                lost.append(directory.path)
            directory.close()
        return lost

    assert in_threads(make_and_sweep) == [[]] * STARTERS
    assert os.listdir(short_base) == []


def test_processes_that_make_and_sweep_at_once_lose_no_living_directory(short_base):
    code = """
for _ in range(30):
    directory = PrivateDirectory.make()
    sweep()
    with open(directory.path + "/socket", "w"):
        pass
    sweep()
    os.stat(directory.path + "/socket")
    directory.close()
print("done")
"""
    assert in_processes("import os" + code) == ["done\n"] * STARTERS
    assert os.listdir(short_base) == []


def test_no_descriptor_is_left_open(short_base):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        tree_key(None)
        PrivateDirectory.make().close()
        abandoned()
        sweep()
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_key_file_errors_survive_pickling():
    error = keys._refused("/x", "why")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
