from __future__ import annotations

import contextlib
import socket

import pytest

from ipevents._core.handshake import ClientHandshake, FrameReader, Identity, ServerHandshake, framed
from ipevents._exceptions import LinkError
from ipevents._transport.pending import Pending

KEY = b"k" * 32
SERVER = Identity("server", 1, (3, 11), 1 << 24)
CLIENT = Identity("client", 2, (3, 11), 1 << 24)


@pytest.fixture
def ends():
    """A client's socket, and the pending handshake at the other end."""
    near, far = socket.socketpair()
    far.setblocking(False)
    with near, far:
        yield near, Pending(far, "", 0.0, ServerHandshake({b"": KEY}.get, SERVER, b"n" * 32))


def frame_from(sock):
    reader = FrameReader()
    while (frame := reader.feed(sock.recv(reader.missing))) is None:
        pass
    return frame


def test_a_client_is_authenticated_and_nothing_after_its_proof_is_read(ends):
    near, pending = ends
    client = ClientHandshake(KEY, b"", CLIENT, b"m" * 32)
    assert pending.advance() is None
    for byte in framed(client.hello()):
        near.sendall(bytes([byte]))
        assert pending.advance() is None
    near.sendall(framed(client.receive(frame_from(near))) + b"first")
    assert pending.advance() == (CLIENT, b"")
    assert pending.socket.recv(100) == b"first"


def test_who_hangs_up_has_gone(ends):
    near, pending = ends
    near.close()
    with pytest.raises(OSError, match="hung up"):
        pending.advance()


def test_who_does_not_speak_the_protocol_breaks_it(ends):
    near, pending = ends
    near.sendall(framed(b"GET / HTTP/1.1"))
    with pytest.raises(LinkError):
        pending.advance()


def test_a_peer_that_takes_nothing_ends_the_handshake_but_needs_no_reason(ends):
    _, pending = ends
    with contextlib.suppress(BlockingIOError):
        while True:
            pending.socket.send(b"x" * 4096)
    with pytest.raises(OSError):
        pending.send(b"frame")
    pending.try_to_send(b"reason")
    pending.try_to_send(None)
