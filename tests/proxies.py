"""Somebody who passes TCP connections on and cuts them, in the middle of frames as well."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Stands at ``port`` before a server at another port of this machine.

    ``cut`` ends all connections at both ends, ``cut_after(size)`` does so as soon as so many more bytes have
    passed, of which the last ones may be half a frame. ``hold_after(size)`` passes no more after them, in
    that direction, and lets the connection be. While ``is_down`` new connections are hung up. With
    ``is_unseen`` the server does not see the end of any connection.
    """

    def __init__(self, port, server, *, is_unseen=False):
        self.server = server
        self.is_unseen = is_unseen
        self.is_down = False
        self.was_cut = threading.Event()
        self._left = None  # bytes until the next cut
        self._holds = False  # what is to be cut is held instead
        self._lock = threading.Lock()
        self._open = set()
        self._made = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self):
        with self._lock:
            self._left = None
            self._holds = False
            for end in self._open:
                with contextlib.suppress(OSError):  # by its peer already
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()
        self.was_cut.set()

    def cut_after(self, size):
        self.was_cut.clear()
        with self._lock:
            self._left = size

    def hold_after(self, size):
        with self._lock:
            self._left = size
            self._holds = True

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server))
            except OSError:  # it has ended
                client.close()
                continue
            with self._lock:
                self._open |= {client} if self.is_unseen else {client, server}
                self._made += client, server
            for source, target in ((client, server), (server, client)):
                self._threads.append(threading.Thread(target=self._pump, args=(source, target)))
                self._threads[-1].start()

    def _pump(self, source, target):
        try:
            while data := source.recv(65536):
                with self._lock:
                    cuts = self._left is not None and self._left <= len(data)
                    if cuts:
                        data = data[: self._left]
                    elif self._left is not None:
                        self._left -= len(data)
                    holds = cuts and self._holds
                    if holds:
                        self._left, self._holds = None, False
                target.sendall(data)
                if holds:
                    while source.recv(65536):  # nothing of it goes on
                        continue
                elif cuts:
                    self.cut()
        except OSError:
            pass  # cut, or one of the ends is gone
        if self.is_unseen:
            return
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._open.update(self._made)
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        for end in (*self._made, self._listener):
            end.close()
