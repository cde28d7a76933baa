"""Where the key of a tree comes from, and the file in which the user's key is kept.

A tree has one key. No link uses it directly: ``derive()`` makes another key from it for each purpose, so that
one use reveals nothing about another. It is in no repr, log, argv, environment of a child, or exception.

Nothing here follows a symbolic link, or trusts a file or directory that another user owns or may enter.
"""

from __future__ import annotations

import os
import stat

from .._core.handshake import MIN_KEY_BYTES
from .._core.mac import mac
from .._exceptions import KeyFileError, OptionsError
from .private_directory import OPEN_DIRECTORY, exposed, not_private, sentence

CHILD = b"child"  # purpose: a child's link to its parent; derived from the token of its start
CLIENT = b"link"  # purpose: a client's link to its server; derived from the key of the tree
KEY_BYTES = 32
ENVIRONMENT_KEY = "IPEVENTS_AUTHKEY"

_KEY_FILE = "key"
# O_NONBLOCK: if a FIFO was put there, opening it must not block. Regular files ignore the flag.
_OPEN_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# The key that the environment held when it was read. Assigned in one step, so it needs no lock.
_environment_key: bytes | None = None


def tree_key(option: bytes | None) -> bytes:
    """Return the key of the tree: ``option``, or that of the environment, or that of the user's key file.

    The first of the three that exists is used. The first call takes ``IPEVENTS_AUTHKEY`` out of
    ``os.environ``, so that no child started afterwards inherits it, and remembers it in this process. The
    key file is made if there is none; several processes that make it at once all return the same key.

    Blocks for file access only. From any thread. Raises OptionsError if the environment's key is too short
    (it stays there, and is refused again), and KeyFileError if the file cannot be made, read or trusted.
    """
    from_environment = _take_from_environment()
    return option or from_environment or _key_of_the_user()


def derive(key: bytes, purpose: bytes) -> bytes:
    """Return the 32-byte key for one ``purpose``, a label; ``key`` cannot be computed from it."""
    return mac(key, b"ipevents key 1", purpose)


def _take_from_environment() -> bytes | None:
    """Return the environment's key, or None; take it out of ``os.environ`` if it is still there."""
    global _environment_key
    text = os.environ.get(ENVIRONMENT_KEY)
    if text is not None:
        key = os.fsencode(text)
        if len(key) < MIN_KEY_BYTES:
            raise OptionsError(
                f"{ENVIRONMENT_KEY} must hold at least {MIN_KEY_BYTES} bytes, it holds {len(key)}"
            )
        # Kept before the removal, so that a second thread finds the key in one of the two places.
        _environment_key = key
        os.environ.pop(ENVIRONMENT_KEY, None)
    return _environment_key


# The user's key file.


def _key_of_the_user() -> bytes:
    """Return the key in the user's key file, after making the file if there is none."""
    directory = os.path.join(_state_home(), "ipevents")
    path = os.path.join(directory, _KEY_FILE)
    try:
        _make_directories(directory)
        at = os.open(directory, OPEN_DIRECTORY)
    except OSError as error:
        raise _refused(directory, sentence(error)) from error
    try:
        why = not_private(os.fstat(at)) or exposed(directory)
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
    """Return ``$XDG_STATE_HOME`` or its default. A relative one is ignored, as its specification says."""
    configured = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(configured):
        return configured
    home = os.path.expanduser("~")
    # A service's home may be /nonexistent: it is not made, even where root could make it.
    if not os.path.isabs(home) or not os.path.isdir(home):
        raise _refused(
            os.path.join("~", ".local", "state", "ipevents", _KEY_FILE),
            f"there is no home directory {home!r}",
        )
    return os.path.join(home, ".local", "state")


def _make_directories(path: str) -> None:
    """Make ``path`` and every missing directory above it, each with mode 0700."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # a file of any kind: the caller opens it and checks
    os.chmod(path, 0o700)  # whatever the umask is


def _read_key(at: int, path: str) -> bytes | None:
    """Return the key in the directory that is open as ``at``; None if there is no file."""
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
        # The cause is left out, because its text would quote the file.
        raise _refused(path, f"it does not hold {KEY_BYTES} bytes in hex; delete it and a new one is made")
    return key


def _publish_key(at: int) -> None:
    """Put a new key file into the directory that is open as ``at``, complete or not at all.

    It is written under a temporary name and then linked. link() fails if the name exists; so the first of
    several processes wins, and no process ever reads half a key. If the process is killed in here, the file
    stays under its temporary name, and nothing reads it.
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
        pass  # another process was first: its key is used
    finally:
        os.unlink(temporary, dir_fd=at)


def _refused(path: str, why: str) -> KeyFileError:
    """The exception for a key file that cannot be used: why not, and what the user can do."""
    return KeyFileError(
        f"the key file {path} cannot be used: {why}. Put that right or set XDG_STATE_HOME to another "
        "directory of yours; or give every process of the tree the same key, by the option socket.authkey or "
        f"the environment variable {ENVIRONMENT_KEY}; or do without the socket, by the option useSocket=False"
    )
