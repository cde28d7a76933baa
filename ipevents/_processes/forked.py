"""How a ``multiprocessing`` process is started and handled that the fork server of this process forks.

It is used as any other: by ``multiprocessing.Process`` methods, with an exit code and a sentinel. Ends are
noticed by a pidfd, as the process is no child of this one; its exit code comes from the fork server. Where
that has ended before it could report one, the exit code stays unknown.
"""

from __future__ import annotations

import io
import os
import signal
import socket
from multiprocessing import context, reduction, spawn, util
from multiprocessing.process import BaseProcess
from typing import Any

from .._platform.threads import is_readable
from . import moment
from .fork_server import Forked, fork_server
from .forking import REPORT, Inherited
from .preparation import UNKNOWN_EXITCODE, is_starting


class Popen:
    """How multiprocessing handles a started process; the counterpart of its own classes of this name."""

    method = "spawn"  # what multiprocessing starts in it, by default
    DupFd = Inherited  # called with the number that duplicate_for_child has returned

    def __init__(self, process: BaseProcess) -> None:
        """Start the process. Raises what ``ForkServer.fork`` raises; then there is none."""
        private: Any = util
        private._flush_std_streams()
        fork_server.check()
        self.returncode: int | None = None  # after the end an int in any case, as multiprocessing wants it
        self.code: int | None = None  # the exit code; None where the fork server had ended before it
        self._passed: list[int] = []
        own = moment.status()
        inherits = moment.now(own)
        content = self._pickled(process, inherits)
        self._forked: Forked = fork_server.fork(self._passed, moment.fingerprint(own, inherits))
        self.pid = self._forked.pid
        self.pidfd = self._forked.pidfd  # closed by who starts the process, after the end
        self.sentinel = self._forked.report.fileno()
        try:
            self._write(content)
        except BaseException:  # of a signal handler: the socket ends now, and so does the child
            self.kill()
            self.close()
            self.pidfd.close()
            raise

    def _pickled(self, process: BaseProcess, inherits: moment.Moment) -> memoryview:
        """Return what the child reads: what it inherits of this moment, its preparation, the process."""
        file = io.BytesIO()
        reduction.dump(tuple(inherits), file)
        private: Any = spawn
        preparation = private.get_preparation_data(process.name)
        setter: Any = context
        setter.set_spawning_popen(self)
        try:
            reduction.dump(preparation, file)
            reduction.dump(process, file)
        finally:
            setter.set_spawning_popen(None)
        return file.getbuffer()

    def _write(self, content: memoryview) -> None:
        """Write to the child. Its end is noticed elsewhere, so it is no error here."""
        try:
            self._forked.data.sendall(content, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return

    def duplicate_for_child(self, descriptor: int) -> int:
        """Pass a descriptor on to the child; returns the number for ``DupFd``."""
        self._passed.append(descriptor)
        return len(self._passed) - 1

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, None as long as there is none; ``flag=0`` waits for the end first.

        At each start of a process multiprocessing asks all others for their ends. In our own starts it is not
        told: the supervisor notices them, and to look at each takes longer than the start.
        """
        if is_starting():
            return self.returncode
        return self.wait(0.0 if flag == os.WNOHANG else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait at most ``timeout`` seconds for the end, and return ``returncode``.

        Several threads may do so at once: the report is looked at and stays where it is.
        """
        if self.returncode is None and is_readable(self.sentinel, timeout):
            try:
                data = self._forked.report.recv(REPORT.size, socket.MSG_PEEK)
            except ConnectionResetError:
                data = b""
            except OSError:  # closed by another thread, which has set ``returncode`` before
                return self.returncode
            if data:
                (self.code,) = REPORT.unpack(data)
                self.returncode = self.code
            elif is_readable(self.pidfd.number, timeout):  # no report any more: the server is gone
                self.returncode = UNKNOWN_EXITCODE
        return self.returncode

    def wait_for_code(self, seconds: float) -> int | None:
        """Wait for the end of the process, and then for its exit code. Returns that, None if there is none.

        Kills a fork server that does not tell the code so many seconds after the end: it is stopped or stuck.
        """
        is_readable(self.pidfd.number, None)
        if self.wait(seconds) is None:
            fork_server.kill(self._forked.server)
            self.wait(seconds)
        return self.code

    def _send(self, number: int) -> None:
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self.pidfd.number, number)
            except PermissionError:  # some sandboxes allow the one and not the other
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._send(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptors, but the pidfd. The child sees the end of this process by that, too."""
        if self._forked.report.fileno() >= 0:
            self._forked.report.close()
            self._forked.data.close()
