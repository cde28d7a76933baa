"""Where keys come from, and the files and directories of the user.

A tree has one key. It is never used itself on a link: what travels is made from ``derive()``, with
another purpose for each use, so that no use is an oracle for another. It is in no repr, log, argv,
environment of a child, or exception.

Nothing here follows a symbolic link, or trusts a file or directory that another user owns or may enter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys

from .._core.mac import mac
from .._exceptions import KeyFileError, OptionsError, WorkerRefused

MIN_KEY_BYTES = 16
KEY_BYTES = 32
ENVIRONMENT_KEY = "IPEVENTS_AUTHKEY"
# What a socket in a PrivateDirectory may be called at most, see _PATH_BYTES.
MAX_NAME_BYTES = 20

_KEY_FILE = "key"
# sockaddr_un without its final zero byte, less a slash and a name.
_PATH_BYTES = (107 if sys.platform == "linux" else 103) - 1 - MAX_NAME_BYTES
_FALLBACK_PLACE = "/tmp"
_RANDOM_BYTES = 8  # what mkdtemp() appends
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that somebody put there must not hold us up. Regular files ignore it.
_OPEN_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# The key that was in the environment, once it was read. Assigned whole; needs no lock.
_environment_key: bytes | None = None


def tree_key(option: bytes | None) -> bytes:
    """Return the key of the tree: ``option``, else that of the environment, else the user's key file.

    ``IPEVENTS_AUTHKEY`` is taken out of ``os.environ`` by the first call, so that no child started
    afterwards inherits it, and remembered in this process. The key file is made if there is none; of
    several processes that make it at once, all return the same key. Blocks for file access only; any
    thread. OptionsError if the environment's key is too short (it stays there, and is refused again);
    KeyFileError if the file cannot be made, read or trusted.
    """
    from_environment = _take_from_environment()
    return option or from_environment or _key_of_the_user()


def derive(key: bytes, purpose: bytes) -> bytes:
    """Return the 32-byte key for one ``purpose``, a label; from it ``key`` cannot be computed."""
    return mac(key, b"ipevents key 1", purpose)


def _take_from_environment() -> bytes | None:
    global _environment_key
    text = os.environ.get(ENVIRONMENT_KEY)
    if text is not None:
        key = os.fsencode(text)
        if len(key) < MIN_KEY_BYTES:
            raise OptionsError(
                f"{ENVIRONMENT_KEY} must hold at least {MIN_KEY_BYTES} bytes, it holds {len(key)}"
            )
        # Before the removal: a second thread finds the key in one place or the other.
        _environment_key = key
        os.environ.pop(ENVIRONMENT_KEY, None)
    return _environment_key


# The user's key file.


def _key_of_the_user() -> bytes:
    """Return what the key file holds, after making it if there is none."""
    directory = os.path.join(_state_home(), "ipevents")
    path = os.path.join(directory, _KEY_FILE)
    try:
        _make_directories(directory)
        at = os.open(directory, _OPEN_DIRECTORY)
    except OSError as error:
        raise _refused(directory, _sentence(error)) from error
    try:
        why = _not_private(os.fstat(at))
        if why:
            raise _refused(directory, why)
        key = _read_key(at, path)
        if key is None:
            _publish_key(at)
            key = _read_key(at, path)
    except KeyFileError:
        raise
    except OSError as error:
        raise _refused(path, _sentence(error)) from error
    finally:
        os.close(at)
    if key is None:
        raise _refused(path, "it vanished while it was being made")
    return key


def _state_home() -> str:
    """Return the directory of the XDG specification, which says to ignore a relative one."""
    configured = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(configured):
        return configured
    home = os.path.expanduser("~")
    # A service's /nonexistent is not made, not even by root who could.
    if not os.path.isabs(home) or not os.path.isdir(home):
        raise _refused(
            os.path.join("~", ".local", "state", "ipevents", _KEY_FILE),
            f"there is no home directory {home!r}",
        )
    return os.path.join(home, ".local", "state")


def _make_directories(path: str) -> None:
    """Make ``path`` and what is missing above it, each 0700."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # of whatever kind: the caller opens it and looks


def _read_key(at: int, path: str) -> bytes | None:
    """Return the key in the directory open as ``at``, None if there is no file."""
    try:
        file = os.open(_KEY_FILE, os.O_RDONLY | _OPEN_FILE, dir_fd=at)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(file)
        why = _not_private(status) if stat.S_ISREG(status.st_mode) else "it is not a regular file"
        if why:
            raise _refused(path, why)
        text = os.read(file, 4 * KEY_BYTES)
    finally:
        os.close(file)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        # Without the cause: its text would quote the file.
        raise _refused(path, f"it does not hold {KEY_BYTES} bytes in hex; delete it and a new one is made")
    return key


def _publish_key(at: int) -> None:
    """Put a new key file into the directory open as ``at``, whole or not at all.

    link() fails if the name exists, so the first of several starters wins, and nobody ever reads half
    a key. The file of a process killed in here stays under its temporary name; nothing reads it.
    """
    temporary = f"{_KEY_FILE}.{os.getpid()}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FILE
    file = os.open(temporary, flags, 0o600, dir_fd=at)
    try:
        with os.fdopen(file, "wb") as handle:
            os.fchmod(file, 0o600)  # whatever the umask is
            handle.write(os.urandom(KEY_BYTES).hex().encode("ascii") + b"\n")
            handle.flush()
            os.fsync(file)
        os.link(temporary, _KEY_FILE, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    except FileExistsError:
        pass  # another starter was first: its key is the key
    finally:
        os.unlink(temporary, dir_fd=at)


def _not_private(status: os.stat_result) -> str:
    """Return why a file or directory is not only ours, ``""`` if it is."""
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to us ({os.geteuid()})"
    mode = stat.S_IMODE(status.st_mode)
    return f"its mode {mode:04o} lets other users in (chmod go= makes it private)" if mode & 0o077 else ""


def _refused(path: str, why: str) -> KeyFileError:
    return KeyFileError(
        f"the key file {path} cannot be used: {why}; the option socket.authkey does without one"
    )


def _sentence(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # what O_NOFOLLOW makes of a link, by its target
        return "it is a symbolic link, or not a directory"
    return os.strerror(error.errno) if error.errno else str(error)


# Directories for sockets.
#
# A directory belongs to who holds the flock on it, from its making to its removal. The lock is on the
# directory itself: there is no moment at which it has contents and cannot be locked, and systemd-tmpfiles
# leaves locked directories alone however old they are. A sweep may meet a directory that was made and is
# not locked yet; it then locks and removes it, and the maker notices and makes another.


class PrivateDirectory:
    """A directory nobody else may enter, for the sockets of our children; ``path`` is its place.

    Made by ``make()``, removed by ``close()``. A lock is held on it that ends with the process, however
    that ends; ``sweep()`` removes directories whose lock nobody holds. Names in it have at most
    ``MAX_NAME_BYTES`` bytes. All methods: any thread, none blocks.
    """

    __slots__ = ("_held", "_pid", "path")

    def __init__(self, path: str, lock: int) -> None:
        """Take over a new directory and the locked descriptor of it. Called by ``make()``."""
        self.path = path
        self._pid = os.getpid()
        # The locked descriptor, until somebody pops it: pop() is what makes close() idempotent from any
        # thread, and from a signal handler in the middle of itself.
        self._held = [lock]

    @classmethod
    def make(cls) -> PrivateDirectory:
        """Make a directory where sockets have room: ``$XDG_RUNTIME_DIR``, the temporary directory, /tmp.

        The caller must ``close()`` it, and ``abandon()`` it in a forked child. WorkerRefused if none of
        these places will do.
        """
        reasons = []
        for base in _bases():
            why = _unfit(base)
            if not why:
                try:
                    return _make_locked(base)
                except OSError as error:
                    why = _sentence(error)
            reasons.append(f"{base}: {why}")
        raise WorkerRefused(
            f"no directory for the sockets of children ({'; '.join(reasons)}); "
            "set TMPDIR to a short path where you may write"
        )

    def fileno(self) -> int:
        """Return the descriptor that holds the lock; ValueError once closed."""
        try:
            return self._held[0]
        except IndexError:
            raise ValueError(f"{self!r} has no descriptor") from None

    def close(self) -> None:
        """Remove the directory and the files in it, and let go of the lock.

        Idempotent. Removes nothing in a process forked from the one that made it, and nothing that
        somebody put in its place.
        """
        try:
            lock = self._held.pop()
        except IndexError:
            return
        try:
            if self._pid == os.getpid():
                _remove(self.path, lock)
        finally:
            os.close(lock)

    def abandon(self) -> None:
        """Close the descriptor and remove nothing: for a forked child, whose parent goes on using it.

        A copy of the descriptor would keep the lock held after the parent died.
        """
        try:
            os.close(self._held.pop())
        except IndexError:
            return

    def __repr__(self) -> str:
        return f"<PrivateDirectory {self.path} {'open' if self._held else 'closed'}>"


def sweep() -> list[str]:
    """Remove the directories that dead processes of this user left, and return their paths.

    Any thread, several processes at once. Blocks for file access only, raises nothing: what cannot be
    removed now is tried again by the next sweep.
    """
    swept = []
    for base in _bases():
        try:
            names = [name for name in os.listdir(base) if name.startswith(_prefix())]
        except OSError:
            continue  # the place is gone or closed to us, so nothing of ours is there
        for name in names:
            path = os.path.join(base, name)
            try:
                if _sweep_one(path):
                    swept.append(path)
            except OSError:
                continue  # no directory, not ours to open, or another sweep was faster
    return swept


def _prefix() -> str:
    return f"ipevents-{os.geteuid()}-"


def _bases() -> list[str]:
    """Return the places for private directories, best first, each once."""
    import tempfile  # late: slow to import

    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        # What the specification promises. Under su or sudo it may still be another user's.
        if not _not_private(os.stat(runtime)):
            places.append(runtime)
    except OSError:
        pass  # there is none, or no longer
    try:
        places.append(tempfile.gettempdir())
    except FileNotFoundError:
        pass  # none of its candidates can be written; the fallback will say so too
    places.append(_FALLBACK_PLACE)
    return list(dict.fromkeys(place for place in places if os.path.isabs(place)))


def _unfit(base: str) -> str:
    """Return why no private directory can be in ``base``, ``""`` if it can.

    Who owns a directory, or may write to one that is not sticky, can rename ours away and put another
    in its place.
    """
    try:
        status = os.stat(base)
    except OSError as error:
        return _sentence(error)
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "others may rename what is in it"
    if len(os.fsencode(os.path.join(base, _prefix()))) + _RANDOM_BYTES > _PATH_BYTES:
        return "too long for the path of a socket"
    return ""


def _make_locked(base: str) -> PrivateDirectory:
    """Make a directory in ``base`` and lock it. OSError if that cannot be done."""
    import tempfile

    # Each lost round takes a sweep that came in the microseconds between making and locking.
    for _ in range(100):
        path = tempfile.mkdtemp(prefix=_prefix(), dir=base)
        try:
            directory = os.open(path, _OPEN_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            if _lock(directory) and _is_at(path, directory):
                return PrivateDirectory(path, os.dup(directory))  # a dup shares the lock
        finally:
            os.close(directory)
    raise OSError(errno.EAGAIN, "swept as fast as it was made", base)


def _lock(directory: int) -> bool:
    """Lock the open ``directory`` if nobody else does; tell whether it is ours now."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, directory: int) -> bool:
    """Tell whether ``path`` is still the open ``directory``."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(directory))
    except FileNotFoundError:
        return False


def _sweep_one(path: str) -> bool:
    """Remove the private directory ``path`` if its owner is dead; tell whether it is gone by that."""
    directory = os.open(path, _OPEN_DIRECTORY)
    try:
        ours = os.fstat(directory).st_uid == os.geteuid()
        return ours and _lock(directory) and _remove(path, directory)
    finally:
        os.close(directory)


def _remove(path: str, directory: int) -> bool:
    """Remove what is in the open ``directory``, then itself at ``path``; tell whether it is gone by that.

    The caller holds its lock.
    """
    try:
        for name in os.listdir(directory):
            os.unlink(name, dir_fd=directory)
        if not _is_at(path, directory):
            return False  # taken away, or something else stands there now
        os.rmdir(path)
    except OSError:
        return False  # a directory in there, or a file system gone read-only: a later sweep tries again
    return True
