"""What a stop does to the public socket; with processes see system/test_sockets.py."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from ipevents import Emitter
from ipevents._network import client as client_module
from ipevents._transport.acceptor import Acceptor
from ipevents._transport.socket_file import locked

CEILING_SECONDS = 30.0


def test_children_are_told_to_stop_though_the_path_of_the_socket_is_locked(place):
    def work() -> None:
        import threading
        import time

        from ipevents import ipem

        ipem.sendToParents("ready to be stopped")
        try:
            threading.Event().wait()  # left by the SystemExit of the stop
        finally:
            time.sleep(0.2)  # a clean end that takes its time, which a KILL would not give it

    path = str(place / "s")
    emitter = Emitter().options(socket={"socketPath": path}).start()
    with emitter.expecting("ready to be stopped", CEILING_SECONDS):
        child = emitter.worker(work)
    [acceptor] = [thread for thread in threading.enumerate() if thread.name == "ipevents-acceptor-socket"]
    with locked(path):  # as long as somebody who starts there, and is held up
        emitter.stop(timeout=3.0)
        assert child.exitcode == 0
    acceptor.join(CEILING_SECONDS)  # it has waited for the lock, and removes the socket now
    assert not acceptor.is_alive()


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_from_the_beginning_of_a_stop_on_nobody_is_let_in(place, port, family):
    path = str(place / "s") if family == "AF_UNIX" else None
    emitter = Emitter().options(socket={"socketPath": path, "port": port}).start()
    public_socket = emitter._life.public_socket
    assert public_socket is not None
    public_socket.begin_close()
    with socket.socket(getattr(socket, family)) as client, pytest.raises(OSError):
        client.connect(path or ("localhost", port))
    emitter.stop()


def interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
@pytest.mark.parametrize("where", ["waiting for a listener", "starting a thread"])
@pytest.mark.usefixtures("all_is_given_back")
def test_a_start_that_is_interrupted_listens_no_more_and_can_be_repeated(
    place, port, monkeypatch, family, where
):
    path = str(place / "s") if family == "AF_UNIX" else None
    options = {"socketPath": path, "port": port}
    emitter = Emitter().options(socket=options)
    with monkeypatch.context() as patch:
        if where == "waiting for a listener":
            patch.setattr(emitter._life.node.dispatcher, "enter", interrupted)
        else:
            patch.setattr(Acceptor, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            emitter.start()
    assert path is None or not os.path.exists(path)
    with Emitter().options(socket=options) as other:
        assert other.isGrandMaster
    emitter.start()
    assert emitter.isGrandMaster
    emitter.stop()


@pytest.mark.parametrize("what", ["Stream", "Connector"])
@pytest.mark.usefixtures("all_is_given_back")
def test_a_client_that_cannot_be_made_leaves_nothing_behind(place, monkeypatch, what):
    options = {"socketPath": str(place / "s")}
    client = Emitter().options(socket=options)

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Emitter().options(socket=options) as server:
        with monkeypatch.context() as patch:
            patch.setattr(client_module, what, refused)
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                client.start()
        with server.expecting("online", CEILING_SECONDS):
            client.start()
        assert len(client.stats()["links"]) == 1
        client.stop()


@pytest.mark.usefixtures("all_is_given_back")
def test_a_start_that_is_interrupted_hangs_up_and_can_be_repeated(place, monkeypatch):
    options = {"socketPath": str(place / "s")}
    client = Emitter().options(socket=options)
    with Emitter().options(socket=options) as server:
        with monkeypatch.context() as patch:
            patch.setattr(client._life.node.dispatcher, "enter", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.start()
        with server.expecting("online", CEILING_SECONDS):
            client.start()
        assert len(server.stats()["links"]) == 1
        client.stop()


@pytest.mark.parametrize(
    ("version", "is_client", "expected"),
    [
        ((3, 11, 9), False, False),
        ((3, 12, 0), False, True),
        ((3, 12, 2), False, True),
        ((3, 12, 2), True, False),
        ((3, 12, 3), False, False),
    ],
)
def test_only_a_server_on_some_pythons_cannot_serve_after_the_body(
    place, monkeypatch, version, is_client, expected
):
    with Emitter().options(socket={"socketPath": str(place / "s"), "onlyConnect": is_client}) as emitter:
        public_socket = emitter._life.public_socket
        monkeypatch.setattr("sys.version_info", (*version, "final", 0))
        assert public_socket.cannot_serve() == expected
        monkeypatch.undo()
