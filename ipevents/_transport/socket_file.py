"""The file of an AF_UNIX socket whose path several processes want: lock, bind, remove.

Processes that connect or listen at a path coordinate through an ``flock`` on ``path.lock``, a file that
stays. Only under that lock is a stale socket file replaced, or a server's own file removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from .._exceptions import AddressInUse, LinkError
from .._platform.clock import sleep
from .._platform.logs import Log
from .._platform.system import MAX_SOCKET_PATH_BYTES
from .._platform.threads import Deadline
from .private_directory import exposed
from .sockets import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Listener

__all__ = ["SocketFile", "bind", "check_path", "locked"]

LOCK_SECONDS = 5.0
LOCK_STEP_SECONDS = 0.01

log = Log("ipevents.acceptor")


class SocketFile(NamedTuple):
    """The file of one of our listeners, identified by device and inode.

    ``is_contested``: other processes may take the path over, so the file is removed under the path's lock.
    """

    path: str
    device: int
    inode: int
    is_contested: bool = False

    @classmethod
    def at(cls, path: str, *, is_contested: bool = False) -> SocketFile:
        """Return the socket file at ``path``, which must be there (OSError)."""
        status = os.lstat(path)
        return cls(os.path.abspath(path), status.st_dev, status.st_ino, is_contested)

    def remove(self) -> bool:
        """Remove the file if it is still ours; return whether it was. Raises nothing.

        Call it before the listener is closed: while the socket is open, no other file gets its inode number.
        It may wait ``LOCK_SECONDS`` for a process that is just starting at the path.
        """
        try:
            with locked(self.path) if self.is_contested else contextlib.nullcontext():
                return self._remove()
        except OSError as error:
            # The file that stays is stale; the next server replaces it.
            log.debug("! socket file %s not removed: %s", self.path, error)
            return False

    def _remove(self) -> bool:
        """As ``remove``, with the lock held if the file is contested. Raises OSError."""
        status = os.lstat(self.path)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            return False
        os.unlink(self.path)
        return True


def check_path(path: str) -> None:
    """Raise :exc:`LinkError` if no socket can have this path, or another user could take its place."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise LinkError(f"the socket path has {size} bytes, {MAX_SOCKET_PATH_BYTES} are possible: {path}")
    if not path or "\0" in path:
        # Abstract sockets begin with a zero byte and have no owner and no mode.
        raise LinkError(f"not a socket path: {path!r}")
    where = exposed(path)
    if where:
        raise LinkError(f"the socket path {path} is not safe: {where}")


@contextlib.contextmanager
def locked(path: str, pause: Callable[[float], None] = sleep) -> Iterator[None]:
    """Hold the lock of ``path``; blocks for ``LOCK_SECONDS`` at most, or until ``pause`` raises.

    ``pause(seconds)`` is one step of the wait. The lock is held for a connect, a bind or an unlink, and never
    during a handshake. Raises :exc:`LinkError` if the lock file is not a plain file of ours, stays locked, or
    has no directory, and OSError if it cannot be opened.
    """
    name = f"{path}.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        folder = os.path.dirname(path) or os.curdir
        raise LinkError(f"cannot listen at {path}: the directory {folder} does not exist") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise LinkError(f"{name} is not a plain file of this user")
        if not status.st_mode & stat.S_IWUSR:
            os.fchmod(descriptor, 0o600)  # new, made under a umask that takes our own access away
        _take(descriptor, name, pause)
        try:
            yield
        finally:
            # Closing is not enough, because a process forked meanwhile shares the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _take(descriptor: int, name: str, pause: Callable[[float], None]) -> None:
    """Lock the open lock file, in steps. Raises LinkError after LOCK_SECONDS."""
    deadline = Deadline(LOCK_SECONDS)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if deadline.passed():
                raise LinkError(f"another process has held {name} for {LOCK_SECONDS} s") from error
        # A blocking flock has no time limit, and a stopped process may hold the lock.
        pause(LOCK_STEP_SECONDS)


def bind(path: str) -> tuple[Listener, SocketFile]:
    """Listen at ``path``, in place of a stale socket file; the new file has mode 0600.

    The caller holds ``locked(path)``, and a connect under it was refused. Raises :exc:`AddressInUse` if
    something is there that is no socket, and OSError as the system does; then nothing is left.

    The socket is bound in a directory of mode 0700 beside the path, made private there, and moved into place.
    A umask would not do, because it belongs to the whole process and all its threads. A ``chmod`` in place
    would leave a gap in which others can connect. (``ss`` and ``getsockname`` go on showing the first path.)
    """
    _refuse_to_replace(path)
    staging = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        _clear(staging)
    os.mkdir(staging, 0o700)
    os.chmod(staging, 0o700)  # whatever the umask is
    directory = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = listen(_name_in(staging, directory), "AF_UNIX")
        try:
            os.chmod("s", 0o600, dir_fd=directory)
            os.rename("s", path, src_dir_fd=directory)
            listener._listener._address = path  # type: ignore[attr-defined]  # what Listener.address returns
            return listener, SocketFile.at(path, is_contested=True)
        except BaseException:  # only this function has the listener yet
            listener.close()
            raise
    finally:
        os.close(directory)
        _clear(staging)


def _name_in(staging: str, directory: int) -> str:
    """The path at which to bind the socket in the staging directory; on Linux it is never too long."""
    name = f"{staging}/s"
    if len(os.fsencode(name)) > MAX_SOCKET_PATH_BYTES and sys.platform == "linux":
        return f"/proc/self/fd/{directory}/s"  # so only the final path has to be short
    return name


def _refuse_to_replace(path: str) -> None:
    """Raise AddressInUse if something other than a socket is at the path."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressInUse(f"{path} is there and is no socket; it is left alone")


def _clear(staging: str) -> None:
    """Remove our staging directory, also one that a killed process has left there."""
    if os.lstat(staging).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", staging)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{staging}/s")
    os.rmdir(staging)
