"""Servers and strangers for a client to meet."""

from __future__ import annotations

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

    def __init__(self, *listeners, socket_file=None, verdict="client", keep=None):
        self.refused = queue.Queue()
        self.acceptor = Acceptor(
            *listeners,
            name="test",
            me=lambda: SERVER,
            find_key={b"": KEY}.get,
            admit=lambda *_: verdict,
            on_accepted=lambda connection, *_: connection.close() if keep is None else keep(connection),
            on_refused=lambda *refused: self.refused.put(refused),
            socket_file=socket_file,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.acceptor.close(CEILING)


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
