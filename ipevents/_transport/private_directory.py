"""Directories that only this user may enter, for the sockets of a process's children.

A directory belongs to the process that holds the flock on it, from its making to its removal. The lock is on
the directory itself, for two reasons: it can be locked before there is anything in it, and systemd-tmpfiles
leaves locked directories alone, however old they are.

A sweep may find a directory that was made a moment ago and is not locked yet. It then locks and removes it;
the maker notices that and makes another one.

Nothing here follows a symbolic link, or trusts a directory that another user owns or may enter.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from .._exceptions import WorkerRefused
from .._platform.system import MAX_SOCKET_PATH_BYTES
from .sockets import kept

# The longest name of a socket in a PrivateDirectory, see _PATH_BYTES.
MAX_NAME_BYTES = 20
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PATH_BYTES = MAX_SOCKET_PATH_BYTES - 1 - MAX_NAME_BYTES  # of a directory: less a slash and a name
_FALLBACK_PLACE = "/tmp"
_RANDOM_BYTES = 8  # what mkdtemp() appends


class PrivateDirectory:
    """A directory that no other user may enter, for the sockets of our children; ``path`` is its place.

    ``make()`` makes it and ``close()`` removes it. A lock is held on it until the process ends, in whatever
    way; ``sweep()`` removes directories whose lock no process holds. Names in it have at most
    ``MAX_NAME_BYTES`` bytes. All methods may be called in any thread, and none blocks.
    """

    __slots__ = ("_held", "_pid", "_status", "path")

    def __init__(self, path: str, lock: int) -> None:
        """Take over a new directory and the descriptor with the lock on it. Called by ``make()``."""
        self.path = path
        self._pid = os.getpid()
        # The locked descriptor. The thread that pops it closes it, and no other one does: after the close the
        # number may belong to another file.
        self._held = [lock]
        self._status = os.fstat(lock)  # distinguishes this directory from any other at its path

    @classmethod
    def make(cls) -> PrivateDirectory:
        """Make a directory in ``$XDG_RUNTIME_DIR``, the temporary directory or /tmp, the first that will do.

        It will do if it is safe and the path of a socket has room. The caller must ``close()`` the result,
        and ``abandon()`` it in a forked child. Raises WorkerRefused if none of the places will do.
        """
        reasons = []
        for base in _bases():
            why = _unfit(base)
            if not why:
                try:
                    return _make_locked(base)
                except OSError as error:
                    why = sentence(error)
            reasons.append(f"{base}: {why}")
        raise WorkerRefused(
            f"no directory for the sockets of children ({'; '.join(reasons)}); "
            "set TMPDIR to a short path where you may write"
        )

    def fileno(self) -> int:
        """Return the descriptor that holds the lock. Raises ValueError once closed."""
        try:
            return self._held[0]
        except IndexError:
            raise ValueError(f"{self!r} has no descriptor") from None

    def close(self) -> None:
        """Remove the directory with the files in it, and release the lock. May be called again.

        When it returns the directory is gone, even if another thread is in the middle of a ``close()``; so
        the process may end right afterwards. It removes nothing in a process forked from the one that made
        the directory, and nothing that was put in its place.
        """
        try:
            lock = self._held.pop()
        except IndexError:
            self._remove_as_well()
            return
        try:
            if self._pid == os.getpid():
                _remove(self.path, lock)
        finally:
            os.close(lock)

    def _remove_as_well(self) -> None:
        """Remove the directory although other code has the descriptor and is about to remove it.

        That code is another thread, or code that a signal handler has interrupted for this call.
        """
        if self._pid != os.getpid():
            return
        try:
            directory = os.open(self.path, OPEN_DIRECTORY)
        except OSError:
            return  # gone already, as it is unless other code is in the middle of close()
        try:
            if os.path.samestat(self._status, os.fstat(directory)):
                _remove(self.path, directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Close the descriptor and remove nothing; for a forked child, as the parent goes on using it.

        An open copy of the descriptor would keep the lock held after the parent's death.
        """
        try:
            os.close(self._held.pop())
        except IndexError:
            return

    def __repr__(self) -> str:
        return f"<PrivateDirectory {self.path} {'open' if self._held else 'closed'}>"


def sweep() -> list[str]:
    """Remove the directories that dead processes of this user have left, and return their paths.

    Any thread, and several processes at once. Blocks for file access only and raises nothing: what cannot be
    removed now is tried again by the next sweep.
    """
    swept = []
    for base in _bases():
        try:
            names = [name for name in os.listdir(base) if name.startswith(_prefix())]
        except OSError:
            continue  # there is no such place, or we may not enter it: nothing of ours is there
        for name in names:
            path = os.path.join(base, name)
            try:
                if _sweep_one(path):
                    swept.append(path)
            except OSError:
                continue  # no directory, not ours to open, or removed by another sweep
    return swept


def _prefix() -> str:
    """How the names of this user's private directories begin."""
    return f"ipevents-{os.geteuid()}-"


def _bases() -> list[str]:
    """Return the places for private directories, best first, each once."""
    import tempfile  # late: slow to import

    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        # Its specification promises a private one. Under su or sudo it may still be another user's.
        if not not_private(os.stat(runtime)):
            places.append(runtime)
    except OSError:
        pass  # there is none, or it is gone
    try:
        places.append(tempfile.gettempdir())
    except FileNotFoundError:
        pass  # none of its candidates is writable; nor is the fallback, which says so
    places.append(_FALLBACK_PLACE)
    return list(dict.fromkeys(place for place in places if os.path.isabs(place)))


def _unfit(base: str) -> str:
    """Return why no private directory can be in ``base``; ``""`` if one can.

    A user who owns ``base``, or may write to it while it is not sticky, could rename our directory and put
    another in its place.
    """
    try:
        status = os.stat(base)
    except OSError as error:
        return sentence(error)
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "others may rename what is in it"
    if len(os.fsencode(os.path.join(base, _prefix()))) + _RANDOM_BYTES > _PATH_BYTES:
        return "too long for the path of a socket"
    return exposed(base)


def _make_locked(base: str) -> PrivateDirectory:
    """Make a directory in ``base`` and lock it. Raises OSError if that is not possible."""
    import tempfile

    # A round is lost only if a sweep comes in the microseconds between making and locking.
    for _ in range(100):
        path = tempfile.mkdtemp(prefix=_prefix(), dir=base)
        made, copy = None, -1
        try:
            with contextlib.suppress(FileNotFoundError):  # swept already
                os.chmod(path, 0o700)  # whatever the umask is
            directory = kept(os.open, path, OPEN_DIRECTORY)
            try:
                if _lock(directory) and _is_at(path, directory):
                    copy = kept(os.dup, directory)  # it shares the lock
                    made = PrivateDirectory(path, copy)
            finally:
                os.close(directory)
        except FileNotFoundError:
            continue
        except BaseException:  # no descriptor, or a signal handler: nothing is left on the disk
            if made is not None:
                made.close()
            elif copy >= 0:
                os.close(copy)
            with contextlib.suppress(OSError):
                os.rmdir(path)
            raise
        if made is not None:
            return made
    raise OSError(errno.EAGAIN, "swept as fast as it was made", base)


def _lock(directory: int) -> bool:
    """Lock the open ``directory`` if no other process has; return whether it is ours now."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, directory: int) -> bool:
    """Whether ``path`` still leads to the open ``directory``."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(directory))
    except FileNotFoundError:
        return False


def _sweep_one(path: str) -> bool:
    """Remove the private directory ``path`` if its owner is dead; return whether this call removed it."""
    directory = kept(os.open, path, OPEN_DIRECTORY)
    try:
        ours = os.fstat(directory).st_uid == os.geteuid()
        return ours and _lock(directory) and _remove(path, directory)
    finally:
        os.close(directory)


def _remove(path: str, directory: int) -> bool:
    """Remove the files in the open ``directory``, then the directory itself at ``path``.

    Returns whether this call removed it. This process holds its lock.
    """
    try:
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # two threads remove it at once
                os.unlink(name, dir_fd=directory)
        if not _is_at(path, directory):
            return False  # moved away, or something else is there now
        os.rmdir(path)
    except OSError:
        return False  # it holds a directory, or the file system is read-only: a later sweep tries again
    return True


def not_private(status: os.stat_result) -> str:
    """Return why other users can use a file or directory; ``""`` if only we can."""
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to us ({os.geteuid()})"
    mode = stat.S_IMODE(status.st_mode)
    return f"its mode {mode:04o} lets other users in (chmod go= makes it private)" if mode & 0o077 else ""


def exposed(path: str) -> str:
    """Return where and why another user could put something in the place of ``path``; ``""`` if nowhere.

    All directories above it are looked at, and those above what links among them lead to. Whoever owns one,
    or may write to it while it is not sticky, can rename what is in it. A group with the number of this user,
    as many systems give each user one, or with that of root, is nobody else.
    """
    ours = {0, os.geteuid(), *_owners_out_of_sight()}
    directory = os.path.dirname(os.path.abspath(path))
    for place in dict.fromkeys((*_upwards(directory), *_upwards(os.path.realpath(directory)))):
        try:
            status = os.stat(place)
        except OSError:
            continue  # what is to be made there fails for that reason, and says it
        if status.st_uid not in ours:
            return f"{place} belongs to user {status.st_uid}"
        others = stat.S_IWOTH | (0 if status.st_gid in ours else stat.S_IWGRP)
        if status.st_mode & others and not status.st_mode & stat.S_ISVTX:
            return f"other users may write to {place} (chmod go-w keeps them out)"
    return ""


def _upwards(directory: str) -> list[str]:
    """Return a directory and all that are above it."""
    found = [directory]
    while (above := os.path.dirname(found[-1])) != found[-1]:
        found.append(above)
    return found


def _owners_out_of_sight() -> set[int]:
    """Return as which user this process sees root where it is in a namespace of users that has no root."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            rows = [list(map(int, line.split())) for line in file]
        if not any(outside == 0 for _, outside, _ in rows):
            with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
                return {int(file.read())}
    except (OSError, ValueError):  # no Linux, or no /proc
        pass
    return set()


def sentence(error: OSError) -> str:
    """The text of a system error; says of a symbolic link that it is one."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # O_NOFOLLOW: what a link gives, by its target
        return "it is a symbolic link, or not a directory"
    return os.strerror(error.errno) if error.errno else str(error)
