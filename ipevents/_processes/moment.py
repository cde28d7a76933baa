"""What a child inherits from the process that starts it, where a fork server forks it.

A child of ``spawn`` inherits all of this from its starter through ``fork`` and ``exec``. The fork server has
what its owner had when the server was started. What has changed since comes in three kinds:

- A ``Moment`` is what the child can take over by itself: ``now()`` in the starter, ``apply()`` in the child.
- A ``Fingerprint`` is what no process can give itself (an identity that was left, a limit that was lowered),
  or what the interpreter reads only when it begins. If it differs from that of the running server, children
  need another server. The starter compares it.
- ``surroundings()`` are of the same kind. The server compares its own with the starter's before each fork,
  because all these files take the starter longer: with each it may lose its turn to another of its threads.
  Only where the starter is hidden from it, after ``setuid()`` for example, does it have to be told.

No state of its own, no lock.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._options import START_VARIABLE
from .pidfds import open_pidfd

_STATUS = "/proc/thread-self/status"
_NO_PROC = "there is no /proc, which tells what a child would inherit"
# Lines of that file that are the same in a process and in what it starts. Uid and Gid have four ids each.
_STATUS_LINES = (
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
    "THP_enabled",
    "Cpus_allowed",
    "Mems_allowed",
)
_FILES = ("cgroup", "coredump_filter", "oom_score_adj", "attr/current")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")
# Read by the interpreter, the loader, the C library or this one only when a process begins.
_READ_AT_START = (
    *(b"PYTHON", b"LD_", b"MALLOC_", b"GLIBC_", b"LC_", b"LANG", b"LOCPATH"),
    os.fsencode(START_VARIABLE),
)
# Set by tools that measure each process from its very beginning, by a hook of site-packages.
_MEASURED = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COV_CORE_SOURCE", "COV_CORE_CONFIG")
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # in each interpreter, from its start on
_LIMITS = tuple(sorted(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")))

Fingerprint = tuple[Any, ...]


class Moment(NamedTuple):
    """What a process of Linux inherits and can also set for itself, in plain values."""

    environment: dict[bytes, bytes]
    umask: int
    blocked: tuple[int, ...]  # signals, in the thread that starts the child
    ignored: tuple[int, ...]  # signals
    limits: tuple[tuple[int, tuple[int, int]], ...]  # number of the limit, soft and hard


class Surroundings(NamedTuple):
    """More of a thread of a process that its children inherit. Only for comparison with another one's."""

    root: tuple[int, int] | None  # inode and device, others after chroot; None where the process is hidden
    namespaces: list[str | None]
    files: list[bytes | None]

    def told(self) -> bytes:
        """Return the same as bytes, equal where this is equal."""
        return repr(tuple(self)).encode("ascii", "backslashreplace")


def status() -> Mapping[str, str]:
    """Return the lines of the calling thread's status by their names. Raises OSError without ``/proc``."""
    # The name of a process there may be any bytes.
    lines = _content(_STATUS).decode("utf-8", "surrogateescape").split("\n")
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def now(own: Mapping[str, str]) -> Moment:
    """Return what a child that is started now by this thread inherits; ``own`` is its ``status()``."""
    return Moment(
        dict(os.environb),
        int(own["Umask"], 8),
        tuple(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        numbers_in(own["SigIgn"]),
        tuple((number, resource.getrlimit(number)) for number in _LIMITS),
    )


def apply(moment: Moment) -> None:
    """Give this process, a child that was just forked, what its starter had."""
    environment = os.environb
    for name in list(environment):
        if name not in moment.environment:
            del environment[name]
    for name, value in moment.environment.items():
        if environment.get(name) != value:
            environment[name] = value
    time.tzset()
    os.umask(moment.umask)
    for number, limits in moment.limits:
        if resource.getrlimit(number) != limits:
            resource.setrlimit(number, limits)
    for number in signal.valid_signals():
        if number not in _IGNORED_BY_PYTHON:
            _dispose(number, number in moment.ignored)
    signal.pthread_sigmask(signal.SIG_SETMASK, moment.blocked)


def _dispose(number: int, ignored: bool) -> None:
    """Ignore a signal if the starter does, and have its default in place of an ignored one if not.

    Handlers stay: the server has none but those that the interpreter itself has set at its start.
    """
    if ignored is not (signal.getsignal(number) == signal.SIG_IGN):
        default: Any = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if ignored else default)


def identity() -> object:
    """Return the users and groups of this process. Another thread may change them at any moment."""
    return os.getresuid(), os.getresgid(), os.getgroups()


def fingerprint(own: Mapping[str, str], inherited: Moment) -> Fingerprint:
    """Return what a running server can give no child of its own.

    ``own`` is the thread's ``status()``, and ``inherited`` its moment. Only for comparison with another one.
    The first item is ``identity()``.
    """
    limits = dict(inherited.limits)
    return (
        identity(),
        tuple(own.get(name) for name in _STATUS_LINES),
        _found("/proc/self/timerslack_ns"),
        os.getsid(0),
        os.getpgrp(),
        os.getpriority(os.PRIO_PROCESS, 0),
        (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
        [hard for _, hard in limits.values()],
        limits[resource.RLIMIT_STACK][0],  # of it the C library makes the size of threads' stacks
        sorted(item for item in inherited.environment.items() if item[0].startswith(_READ_AT_START)),
    )


def fingerprint_now() -> Fingerprint:
    """Return that of the calling thread."""
    own = status()
    return fingerprint(own, now(own))


def surroundings(pid: object, thread: int) -> Surroundings:
    """Return those of a thread of a process.

    A process of which no core may be dumped, after setuid() for example, hides them from others.
    """
    place = f"/proc/{pid}/task/{thread}"
    try:
        found = os.stat(f"{place}/root/")
        root = (found.st_ino, found.st_dev)
    except OSError:
        root = None
    return Surroundings(
        root,
        [_link(f"{place}/ns/{name}") for name in _NAMESPACES],
        [_found(f"/proc/{pid}/{name}") for name in _FILES],
    )


def unfit() -> str | None:
    """Return why no fork server can serve any process here, in words; None if one can."""
    if sys.platform != "linux":
        return _NO_PROC
    own = open_pidfd(os.getpid())
    if own is None:
        return "the system has no pidfds, by which the ends of children are noticed"
    own.close()
    return "the program is frozen into one file" if getattr(sys, "frozen", False) else None


def unfit_now() -> str | None:
    """Return why no fork server can serve this process as it is now, in words; None if one can."""
    if not os.path.exists(_STATUS):  # in a chroot or namespace that was entered only now, too
        return _NO_PROC
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return "the effective user or group is not the real one, so a new program does not get all variables"
    measured = [name for name in _MEASURED if name in os.environ]
    if measured:
        return f"{measured[0]} is set, so each process is measured from its very beginning"
    return None


def numbers_in(mask: str) -> tuple[int, ...]:
    """Return the numbers of the signals in a mask as ``/proc`` shows it, hexadecimal.

    >>> numbers_in("0000000000001002")
    (2, 13)
    """
    bits = int(mask, 16)
    return tuple(number for number in range(1, bits.bit_length() + 1) if bits >> (number - 1) & 1)


def _content(path: str) -> bytes:
    """Return what a file of ``/proc`` says. A signal handler may raise in here."""
    files: list[int] = []
    try:
        # ``map`` has the number in the list before a signal handler can raise.
        files += map(os.open, (path,), (os.O_RDONLY | os.O_CLOEXEC,))
        content = b""
        while part := os.read(files[0], 1 << 16):
            content += part
        return content
    finally:
        for file in files:
            os.close(file)


def _found(path: str) -> bytes | None:
    """Return the same, or None where it is not there or not for us."""
    try:
        return _content(path)
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
