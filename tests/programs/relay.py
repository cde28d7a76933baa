"""Somebody between a client and a server: ``relay.py NEAR FAR MODE [UID]``.

NEAR and FAR are ports, or paths. It becomes the user UID, listens at NEAR, and passes everything on to and
from FAR. On the first connection it does what MODE says to the first frame after the handshake in each
direction, and prints a line: ``flip``, ``repeat``, ``drop``, ``swap`` with the next one, ``reflect`` (send it
back), ``forge`` (in its place a frame of ours with a pickle that would print), or ``pass``. Later connections
are passed on as they are.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading

HANDSHAKE_FRAMES = 2  # in each direction


class Prints:
    def __reduce__(self):
        return print, ("unpickled what was forged",)


def address(text):
    if text.isdigit():
        return socket.AF_INET, ("127.0.0.1", int(text))
    return socket.AF_UNIX, text


def exactly(source, size):
    data = b""
    while len(data) < size:
        data += source.recv(size - len(data)) or sys.exit()
    return data


def next_frame(source):
    header = exactly(source, 4)
    return header + exactly(source, int.from_bytes(header, "big"))


def tampered(mode, frame, source):
    """What to send on in place of this frame, and what to send back."""
    if mode == "flip":
        return frame[:-1] + bytes([frame[-1] ^ 1]), b""
    if mode == "repeat":
        return 2 * frame, b""
    if mode == "drop":
        return b"", b""
    if mode == "swap":
        return next_frame(source) + frame, b""
    if mode == "reflect":
        return b"", frame
    if mode == "forge":
        content = pickle.dumps([Prints()])
        return len(content).to_bytes(4, "big") + content, b""
    return frame, b""


def pass_on(source, sink, mode, name):
    try:
        for _ in range(HANDSHAKE_FRAMES):
            sink.sendall(next_frame(source))
        frame = next_frame(source)
        print(f"{mode} {name}", flush=True)
        on, back = tampered(mode, frame, source)
        sink.sendall(on)
        source.sendall(back)
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except (OSError, SystemExit):
        pass  # one of the ends has hung up
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # it has hung up


def main(near, far, mode, uid=""):
    if uid:
        os.setuid(int(uid))
    family, where = address(near)
    listener = socket.socket(family)
    if family == socket.AF_INET:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(where)
    listener.listen()
    print("listens", flush=True)
    while True:
        client, _ = listener.accept()
        family, where = address(far)
        server = socket.socket(family)
        server.connect(where)
        for source, sink, name in ((client, server, "up"), (server, client, "down")):
            threading.Thread(target=pass_on, args=(source, sink, mode, name), daemon=True).start()
        mode = "pass"


if __name__ == "__main__":
    main(*sys.argv[1:])
