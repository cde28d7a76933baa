"""Somebody stands between two programs: as another user where the tests may become one, else as the same."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from recorder import CEILING_SECONDS

from ipevents._exceptions import Forged, LinkError

RELAY = Path(__file__).parent.parent / "programs" / "relay.py"
IS_ROOT = os.geteuid() == 0
NOBODY = ["65534"] if IS_ROOT else []


@pytest.fixture
def open_place():
    """A directory that any user may write to."""
    place = tempfile.mkdtemp(dir="/tmp")
    os.chmod(place, 0o1777)
    yield Path(place)
    shutil.rmtree(place)


@pytest.fixture
def relay():
    """Starts a relay; returns the process, whose lines can be read."""
    started = []

    def start(near, far, mode):
        process = subprocess.Popen(
            [sys.executable, "-c", RELAY.read_text(), str(near), str(far), mode, *NOBODY],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "listens\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def where(kind, place, name, port):
    """The options of a socket of that kind, and how the relay calls it."""
    if kind == "tcp":
        return {"port": port}, port
    return {"socketPath": str(place / name)}, place / name


@pytest.mark.parametrize(
    ("near", "far", "why"),
    [
        ("tcp", "tcp", "socket.forwarded=True"),
        ("tcp", "path", "hung up" if IS_ROOT else "socket.forwarded=True"),
        ("path", "tcp", "another user" if IS_ROOT else "socket.forwarded=True"),
        pytest.param(
            *("path", "path", "another user"),
            marks=pytest.mark.skipif(not IS_ROOT, reason="a process of the same user may do all that we may"),
        ),
    ],
)
def test_nobody_can_read_what_two_programs_of_one_machine_say(
    recorders, relay, open_place, port, second_port, near, far, why
):
    """D3: somebody passes a handshake on."""
    there, far_end = where(far, open_place, "server", port)
    server = recorders(**there).start()
    if far == "path":
        os.chmod(far_end, 0o777)  # so that it is not the permissions that keep the relay away
    here, near_end = where(near, open_place, "relay", second_port)
    between = relay(near_end, far_end, "pass")
    client = recorders(onlyConnect=True, **here)
    try:
        client.start()  # the first try may fail in here
        client.wait("error")
        error = client.args("error")[0]
    except LinkError as exc:
        error = exc
    assert why in str(error)
    client.emitter.stop()
    between.kill()
    assert "pass" not in between.stdout.read()  # nothing but frames of the handshake
    assert server.of("online") == server.of("online", server.pid)


MODES = ["flip", "repeat", "drop", "swap", "reflect", "forge"]


@pytest.mark.parametrize("mode", MODES)
def test_through_a_tunnel_nobody_can_write(recorders, relay, port, second_port, mode):
    """D3: who is between two ends can only cut."""
    errors = queue.Queue()
    server = recorders("mark", port=port, forwarded=True).start()
    between = relay(second_port, port, mode)
    client = recorders("mark", port=second_port, forwarded=True, onlyConnect=True)
    for each in (server, client):
        each.emitter.on("error", lambda message, error: errors.put(error))
    client.start()
    while between.stdout.readline() != f"{mode} up\n":
        continue
    if mode in ("drop", "swap"):  # that is noticed when another frame comes
        client.emitter.bubble("evt", 1)
    assert isinstance(errors.get(timeout=CEILING_SECONDS), Forged)
    client.wait("online", client.pid, count=2)  # it connects again, and nobody is between them any more
    client.emitter.bubble("mark")
    server.wait("mark", client.pid)
    server.emitter.broadcast("mark")
    client.wait("mark", server.pid)
    assert server.args("evt") in ([], [1])
    assert {type(error) for error in server.args("error") + client.args("error")} == {Forged}
    between.kill()
    assert "unpickled" not in between.stdout.read()
