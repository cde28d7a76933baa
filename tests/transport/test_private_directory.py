from __future__ import annotations

import fcntl
import io
import os
import stat
import tempfile
from pathlib import Path

import pytest
from starters import STARTERS, in_processes, in_threads, release, started

from ipevents import _exceptions as exceptions
from ipevents._transport import private_directory
from ipevents._transport.private_directory import PrivateDirectory, exposed, sweep


@pytest.fixture(autouse=True)
def short_base(tmp_path_factory):
    """An own short place for directories: tmp_path is too long for the path of a socket."""
    tmp_path_factory.getbasetemp()  # made with the first use, which must not be in here
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
def _own_world(monkeypatch, short_base):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short_base))
    monkeypatch.setattr(
        private_directory, "_FALLBACK_PLACE", str(short_base)
    )  # never sweep the machine's own


def as_another_user(monkeypatch):
    """To the code under test, everything on this disk belongs to somebody else."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(private_directory.os, "geteuid", lambda: uid)


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


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


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277, 0o777])
def test_a_private_directory_is_private_and_ours_to_use_under_every_umask(umask):
    before = os.umask(umask)
    try:
        directory = PrivateDirectory.make()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o700
    directory.close()


@pytest.mark.parametrize("call", ["listdir", "unlink", "rmdir"])
def test_a_second_close_in_the_middle_of_the_first_removes_all(short_base, monkeypatch, call):
    """The second one may be a signal handler's, which ends the process: there is no first one any more."""
    directory = PrivateDirectory.make()
    Path(directory.path, "socket").touch()
    Path(directory.path, "another").touch()
    plain = getattr(os, call)
    left = []

    def interrupted(*args, **kwargs):
        monkeypatch.setattr(private_directory.os, call, plain)
        directory.close()
        left.extend(os.listdir(short_base))
        return plain(*args, **kwargs)

    monkeypatch.setattr(private_directory.os, call, interrupted)
    directory.close()
    assert left == []
    assert os.listdir(short_base) == []


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
        forked.setattr(private_directory.os, "getpid", lambda: 1)
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
    assert str(runtime) not in private_directory._bases()


def test_a_place_that_is_too_long_for_sockets_is_passed_over(monkeypatch, short_base):
    long = short_base / ("long" * 20)
    long.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_place_where_others_may_rename_our_directory_is_passed_over(monkeypatch, short_base, bits):
    """D10: a shared directory for temporary files."""
    writable = short_base / "tmp"
    writable.mkdir()
    writable.chmod(bits)
    monkeypatch.setattr(tempfile, "tempdir", str(writable))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_a_place_of_another_user_is_passed_over(monkeypatch, short_base):
    assert private_directory._unfit(str(short_base)) == ""
    status = os.stat_result((0o40700, 0, 0, 2, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(private_directory.os, "stat", lambda path: status)
    assert private_directory._unfit(str(short_base)) == f"it belongs to user {status.st_uid}"


@pytest.mark.parametrize("bits", [0o777, 0o702, 0o722])
def test_a_place_below_one_that_others_may_write_to_is_passed_over(monkeypatch, short_base, bits):
    """D10: who may rename a directory may put another one in its place, with all that is below it."""
    place = short_base / "open" / "tmp"
    place.mkdir(parents=True, mode=0o700)
    place.parent.chmod(bits)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_what_is_above_a_path_is_looked_at_up_to_the_top_and_through_links(short_base):
    """D10: a link leads to a directory that others may write to."""
    (short_base / "open").mkdir()
    (short_base / "closed").mkdir(mode=0o700)
    (short_base / "open" / "mine").mkdir(mode=0o700)
    (short_base / "closed" / "link").symlink_to(short_base / "open" / "mine")
    path = str(short_base / "closed" / "link" / "s")
    assert exposed(path) == ""
    (short_base / "open").chmod(0o707)
    text = f"other users may write to {short_base / 'open'} (chmod go-w keeps them out)"
    assert exposed(path) == exposed(str(short_base / "open" / "mine" / "s")) == text
    (short_base / "open").chmod(0o1777)
    assert exposed(path) == ""


def test_a_group_of_others_counts_and_the_users_own_does_not(monkeypatch, short_base):
    own = (0o40770, 0, 0, 2, os.geteuid(), os.geteuid(), 0, 0, 0, 0)
    monkeypatch.setattr(private_directory.os, "stat", lambda path: os.stat_result(own))
    assert exposed("/some/path") == ""
    others = (*own[:5], os.geteuid() + 1, *own[6:])
    monkeypatch.setattr(private_directory.os, "stat", lambda path: os.stat_result(others))
    assert exposed("/some/path").startswith("other users may write to /some ")


def test_what_is_not_there_yet_is_no_danger(short_base):
    assert exposed(str(short_base / "not" / "yet" / "s")) == ""


@pytest.mark.parametrize(
    ("rows", "unseen"),
    [
        ("0 0 4294967295", set()),
        ("1000 1000 1", {65534}),
        ("0 1000 1\n1 100000 65536", {65534}),
        ("?", set()),
    ],
)
def test_root_may_be_out_of_sight_in_a_namespace_of_users(monkeypatch, rows, unseen):
    files = {"/proc/self/uid_map": rows, "/proc/sys/kernel/overflowuid": "65534\n"}
    monkeypatch.setattr("builtins.open", lambda name, **_: io.StringIO(files[name]))
    assert private_directory._owners_out_of_sight() == unseen


def test_a_place_for_everybody_is_used_if_it_is_sticky(short_base):
    short_base.chmod(0o1777)
    directory = PrivateDirectory.make()
    assert Path(directory.path).parent == short_base
    directory.close()


def test_without_any_place_the_error_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setattr(
        private_directory, "_bases", lambda: ["/nonexistent/place", "/" + "x" * 90, "/dev/null"]
    )
    with pytest.raises(exceptions.WorkerRefused, match=r"/nonexistent/place: No such file.*set TMPDIR"):
        PrivateDirectory.make()


def test_a_socket_with_a_name_of_the_full_length_fits(short_base):
    import socket

    longest = (
        private_directory._PATH_BYTES
        - len(str(short_base))
        - 1
        - 1
        - len(private_directory._prefix())
        - private_directory._RANDOM_BYTES
    )
    base = short_base / ("x" * longest)
    base.mkdir(mode=0o700)
    assert private_directory._unfit(str(base)) == ""
    assert private_directory._unfit(f"{base}x") != ""
    directory = private_directory._make_locked(str(base))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.join(directory.path, "n" * private_directory.MAX_NAME_BYTES))
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
    theirs = short_base / f"{private_directory._prefix()}x"
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
    monkeypatch.setattr(private_directory, "_bases", lambda: ["/nonexistent/place", str(short_base)])
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
    lock = private_directory._lock
    swept = []

    def swept_first(directory):
        if not swept:
            monkeypatch.setattr(private_directory, "_lock", lock)
            swept.extend(sweep())
        return lock(directory)

    monkeypatch.setattr(private_directory, "_lock", swept_first)
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
        PrivateDirectory.make().close()
        abandoned()
        sweep()
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
