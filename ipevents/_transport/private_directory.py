"""Directories that only this user may enter, for the sockets of a process's children.

A directory belongs to the process that holds the flock on it, from its making to its removal. The lock is on
the directory itself: there is no moment at which it has contents and cannot be locked, and systemd-tmpfiles
leaves locked directories alone however old they are. A sweep may meet a directory that was made and is not
locked yet; it then locks and removes it, and the maker notices and makes another.

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

# What a socket in a PrivateDirectory may be called at most, see _PATH_BYTES.
MAX_NAME_BYTES = 20
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PATH_BYTES = MAX_SOCKET_PATH_BYTES - 1 - MAX_NAME_BYTES  # less a slash and a name
_FALLBACK_PLACE = "/tmp"
_RANDOM_BYTES = 8  # what mkdtemp() appends


class PrivateDirectory:
    """A directory nobody else may enter, for the sockets of our children; ``path`` is its place.

    Made by ``make()``, removed by ``close()``. A lock is held on it that ends with the process, however
    that ends; ``sweep()`` removes directories whose lock nobody holds. Names in it have at most
    ``MAX_NAME_BYTES`` bytes. All methods: any thread, none blocks.
    """

    __slots__ = ("_held", "_pid", "_status", "path")

    def __init__(self, path: str, lock: int) -> None:
        """Take over a new directory and the locked descriptor of it. Called by ``make()``."""
        self.path = path
        self._pid = os.getpid()
        # The locked descriptor, until somebody pops it: a number that is closed by one thread may be another
        # file's in the next moment.
        self._held = [lock]
        self._status = os.fstat(lock)  # tells this directory from any other at its path

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
                    why = sentence(error)
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

        Idempotent; when it returns the directory is gone, also where another thread is in the middle of
        the same: the process may end right afterwards. Removes nothing in a process forked from the one that
        made it, and nothing that somebody put in its place.
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
        """Do what the owner of the descriptor, another thread or what it interrupted, is about to do."""
        if self._pid != os.getpid():
            return
        try:
            directory = os.open(self.path, OPEN_DIRECTORY)
        except OSError:
            return  # gone already, as it is whenever nobody is in the middle of it
        try:
            if os.path.samestat(self._status, os.fstat(directory)):
                _remove(self.path, directory)
        finally:
            os.close(directory)

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
        if not not_private(os.stat(runtime)):
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
        return sentence(error)
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
    """Lock the open ``directory`` if nobody else does; return whether it is ours now."""
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
    """Remove the private directory ``path`` if its owner is dead; return whether that removed it."""
    directory = kept(os.open, path, OPEN_DIRECTORY)
    try:
        ours = os.fstat(directory).st_uid == os.geteuid()
        return ours and _lock(directory) and _remove(path, directory)
    finally:
        os.close(directory)


def _remove(path: str, directory: int) -> bool:
    """Remove what is in the open ``directory``, then itself at ``path``; return whether that removed it.

    The caller holds its lock.
    """
    try:
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):  # two threads remove it at once
                os.unlink(name, dir_fd=directory)
        if not _is_at(path, directory):
            return False  # taken away, or something else stands there now
        os.rmdir(path)
    except OSError:
        return False  # a directory in there, or a file system gone read-only: a later sweep tries again
    return True


def not_private(status: os.stat_result) -> str:
    """Return why a file or directory is not only ours, ``""`` if it is."""
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to us ({os.geteuid()})"
    mode = stat.S_IMODE(status.st_mode)
    return f"its mode {mode:04o} lets other users in (chmod go= makes it private)" if mode & 0o077 else ""


def sentence(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # what O_NOFOLLOW makes of a link, by its target
        return "it is a symbolic link, or not a directory"
    return os.strerror(error.errno) if error.errno else str(error)
