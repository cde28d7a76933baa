"""Run a script in a process of its own, wait for what it prints, signal it, and see that nothing is left of
it.

All processes below a script carry a mark in their environment. Nothing here sleeps: waits are for a line
of output, the end of a process, or the end of all marked processes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

CEILING_SECONDS = 30.0  # of every wait; reached only in a deadlock
_MARK = "IPEVENTS_TEST_MARK"

PREAMBLE = """\
import os, signal, sys, threading, time
from ipevents import ipem

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

def told(event, word=None):
    ipem.on(event, lambda message, *args: say(word or event))

ipem.options(useSocket=False, stopTimeout=3000, delayRestart=50)
"""


class Ended(NamedTuple):
    """How a script ended: its status (negative for a signal) and all that it wrote."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Script:
    """A running script, leader of a process group. Made by ``running``."""

    def __init__(self, argv: list[str], folder: Path, mark: str, piped: str | None) -> None:
        self.folder = folder
        self.mark = mark
        environ = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        environ |= {
            _MARK: mark,
            "PYTHONFAULTHANDLER": "1",  # so that SIGABRT prints the stacks of all threads
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder / "tmp"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._came = threading.Condition()  # guards the two lists
        self._out: list[str] = []
        self._err: list[str] = []
        self._open = 2
        self.process = subprocess.Popen(
            argv,
            cwd=folder / "code",
            env=environ,
            stdin=subprocess.DEVNULL if piped is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self._out), (self.process.stderr, self._err))
        ]
        for reader in self._readers:
            reader.start()
        if piped is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(piped)
            self.process.stdin.close()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._came:
                lines.append(line)
                self._came.notify_all()
        with self._came:
            self._open -= 1
            self._came.notify_all()
        stream.close()

    # What it does

    def wait_line(self, *starts: str, count: int = 1) -> list[str]:
        """Wait until ``count`` lines of its output begin with one of these; returns those lines."""

        def found() -> list[str]:
            return [line.rstrip("\n") for line in self._out if line.startswith(starts)]

        with self._came:
            self._came.wait_for(lambda: len(found()) >= count or not self._open, CEILING_SECONDS)
            if len(found()) >= count:
                return found()
        raise AssertionError(f"no {count} lines with {starts} came\n{self.stacks()}")

    def word(self, start: str) -> str:
        """The second word of the first line that begins with ``start``."""
        return self.wait_line(start)[0].split()[1]

    def signal(self, number: int) -> None:
        """To the script's process alone."""
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """To the whole group, as a terminal does for Ctrl-C."""
        os.killpg(self.pid, number)

    def end(self) -> Ended:
        """Wait for the script's own end."""
        try:
            status = self.process.wait(CEILING_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the script does not end\n{self.stacks()}") from None
        for reader in self._readers:  # ends when no descendant holds the streams either
            reader.join(CEILING_SECONDS)
        return Ended(status, "".join(self._out), "".join(self._err))

    def ended(self, seconds: float | None = None) -> Ended:
        """Wait for its end and for the whole tree's, ``seconds`` from now at most; nothing may be left."""
        begun = time.monotonic()
        assert self.left(CEILING_SECONDS if seconds is None else seconds) == [], self.stacks()
        self.took = time.monotonic() - begun
        result = self.end()
        assert self.private_directories() == []
        return result

    # What is left of it

    def tree(self) -> list[int]:
        """The pids of all processes that carry the mark, the script's own first; zombies do not count."""
        mark = f"{_MARK}={self.mark}".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        found.append(int(name))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def left(self, seconds: float) -> list[int]:
        """Wait until no marked process is left; returns those that are, after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.tree()
            if not found:
                self.process.poll()
                return []
            for pid in found:
                if not self._gone(pid, deadline):
                    return self.tree()

    def _gone(self, pid: int, deadline: float) -> bool:
        if pid == self.pid:
            try:
                self.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return False
            return True
        return wait_gone(pid, deadline - time.monotonic())

    def private_directories(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder / "tmp") if name.startswith("ipevents-"))

    def stacks(self) -> str:
        """The stacks of all threads of all its processes, which it ends; and all that it wrote."""
        names = {}
        for pid in self.tree():
            with contextlib.suppress(OSError):
                names[pid] = (
                    Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode()[-60:]
                )
                state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[:2]
                names[pid] += f" {state}"
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGABRT)
                wait_gone(pid, 2.0)
        self.kill()
        return f"left: {names}\n--- out\n{''.join(self._out)}\n--- err\n{''.join(self._err)}"

    def kill(self) -> None:
        """End whatever is left of it."""
        while found := self.tree():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in found:
                self._gone(pid, time.monotonic() + 5.0)
        self.process.wait()


def wait_gone(pid: int | str, seconds: float = CEILING_SECONDS) -> bool:
    """Wait for the end of any process; returns whether it has come."""
    try:
        descriptor = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], max(0.0, seconds))[0])
    finally:
        os.close(descriptor)


def wait_until(is_true: Callable[[], bool], what: str = "") -> None:
    """For what nobody tells, such as the state of a foreign process: look until it is so."""
    deadline = time.monotonic() + CEILING_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, f"it did not come to this: {what or is_true}"
        select.select([], [], [], 0.005)


@contextlib.contextmanager
def running(
    *texts: str,
    args: tuple[str, ...] = (),
    how: str = "script",
    preamble: str = PREAMBLE,
    python: tuple[str, ...] = (),
    files: dict[str, str] | None = None,
) -> Iterator[Script]:
    """Start a script, of one or several pieces of text, and end what is left of it afterwards.

    ``how``: "script", "module" (``-m``), "package" (``-m`` with a ``__main__``), "directory", "command"
    (``-c``), "stdin", "interactive" (``-i``, typed from a pipe). ``files``: further files beside it.
    ``python``: options of the interpreter.
    """
    folder = Path(tempfile.mkdtemp(prefix="ie", dir="/tmp"))  # short: sockets are made below it
    mark = uuid.uuid4().hex
    code = preamble + "".join(textwrap.dedent(text) for text in texts)
    for name in ("tmp", "state", "code/pack/inner"):
        (folder / name).mkdir(parents=True)
    places = {
        "script": "main.py",
        "module": "main.py",
        "package": "pack/inner/__main__.py",
        "directory": "pack/__main__.py",
    }
    calls = {
        "script": ["main.py"],
        "module": ["-m", "main"],
        "package": ["-m", "pack.inner"],
        "directory": ["pack"],
        "command": ["-c", code],
        "stdin": ["-"],
        "interactive": ["-i", "-q", "-"],
    }
    if how in places:
        (folder / "code" / places[how]).write_text(code)
    for name, content in (files or {}).items():
        (folder / "code" / name).write_text(textwrap.dedent(content))
    argv = [sys.executable, *python, *calls[how], *args]
    script = Script(argv, folder, mark, code if how in ("stdin", "interactive") else None)
    try:
        yield script
    finally:
        script.kill()
        shutil.rmtree(folder, ignore_errors=True)


# Scripts that simply run to their end.


def write(path: Path, text: str) -> Path:
    """A script in a file; makes the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run python with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=CEILING_SECONDS,
        cwd=cwd,
        check=False,
    )


def printed(*command: object, cwd: Path | None = None) -> list[str]:
    """The lines that a script prints; it must end with status 0 and an empty stderr."""
    ended = run(*command, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()
