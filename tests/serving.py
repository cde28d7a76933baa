"""Servers and strangers for a client to meet."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading

from ipevents._core.handshake import Identity
from ipevents._transport.acceptor import Acceptor

CEILING = 60.0  # reached only in a deadlock
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SERVER = Identity("server", 1, (3, 11), 1 << 24)
CLIENT = Identity("client", 2, (3, 11), 1 << 24)


class Serving:
    """An acceptor that closes what it accepts."""

    def __init__(self, *listeners, socket_file=None, verdict="client", keep=None, forwarded=False):
        self.refused = queue.Queue()
        self.acceptor = Acceptor(
            *listeners,
            name="test",
            me=lambda: SERVER,
            find_key={b"": KEY}.get,
            admit=lambda *_: (verdict, 0) if isinstance(verdict, str) else verdict,
            on_accepted=lambda accepted: (
                accepted.connection.close() if keep is None else keep(accepted.connection)
            ),
            on_refused=lambda *refused: self.refused.put(refused),
            socket_file=socket_file,
            forwarded=forwarded,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.acceptor.close(CEILING)


class Relay:
    """Somebody who listens at one address and passes everything on, to and from another one."""

    def __init__(self, family, where, to_family, to):
        self.where = where
        self._to = to_family, to
        self._listener = socket.create_server(where) if family == "AF_INET" else socket.socket(socket.AF_UNIX)
        if family == "AF_UNIX":
            self._listener.bind(where)
            self._listener.listen()
        self._open = []
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(getattr(socket, self._to[0]))
            far.connect(self._to[1])
            self._open += near, far
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass_on, args=pair))
                self._threads[-1].start()

    def _pass_on(self, source, sink):
        try:
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(CEILING)
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(CEILING)
        for sock in (self._listener, *self._open):
            sock.close()


class Stranger:
    """Something else that listens; ``behave(sock)`` for each connection."""

    def __init__(self, address, family, behave):
        self.sock = socket.socket(getattr(socket, family))
        try:
            self.sock.bind(address)
            self.sock.listen()
        except BaseException:
            self.sock.close()
            raise
        self.thread = threading.Thread(target=self.run, args=(behave,))
        self.thread.start()

    def run(self, behave):
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            with sock:
                behave(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(CEILING)
        self.sock.close()


def echo(sock):
    while received := sock.recv(100):
        sock.sendall(received)


def be_silent(sock):
    while sock.recv(100):
        pass


def drip(sock):
    try:
        sock.sendall(b"\0\0")
        while sock.recv(100):
            pass
    except OSError:
        pass
