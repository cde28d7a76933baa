"""Where keys come from, and the file in which the user's key is kept.

A tree has one key. It is never used itself on a link: what travels is made from ``derive()``, with
another purpose for each use, so that no use is an oracle for another. It is in no repr, log, argv,
environment of a child, or exception.

Nothing here follows a symbolic link, or trusts a file or directory that another user owns or may enter.
"""

from __future__ import annotations

import os
import stat

from .._core.handshake import MIN_KEY_BYTES
from .._core.mac import mac
from .._exceptions import KeyFileError, OptionsError
from .private_directory import OPEN_DIRECTORY, not_private, sentence

CHILD = b"child"  # the purpose of the key of a child's link to its parent, made from the token of its start
CLIENT = b"link"  # that of the key of a client's link to its server, made from the key of the tree
KEY_BYTES = 32
ENVIRONMENT_KEY = "IPEVENTS_AUTHKEY"

_KEY_FILE = "key"
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
        at = os.open(directory, OPEN_DIRECTORY)
    except OSError as error:
        raise _refused(directory, sentence(error)) from error
    try:
        why = not_private(os.fstat(at))
        if why:
            raise _refused(directory, why)
        key = _read_key(at, path)
        if key is None:
            _publish_key(at)
            key = _read_key(at, path)
    except KeyFileError:
        raise
    except OSError as error:
        raise _refused(path, sentence(error)) from error
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
    os.chmod(path, 0o700)  # whatever the umask is


def _read_key(at: int, path: str) -> bytes | None:
    """Return the key in the directory open as ``at``, None if there is no file."""
    try:
        file = os.open(_KEY_FILE, os.O_RDONLY | _OPEN_FILE, dir_fd=at)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(file)
        why = not_private(status) if stat.S_ISREG(status.st_mode) else "it is not a regular file"
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


def _refused(path: str, why: str) -> KeyFileError:
    return KeyFileError(
        f"the key file {path} cannot be used: {why}. Put that right or set XDG_STATE_HOME to another "
        "directory of yours; or give every process of the tree the same key, by the option socket.authkey or "
        f"the environment variable {ENVIRONMENT_KEY}; or do without the socket, by the option useSocket=False"
    )
