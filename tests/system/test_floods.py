"""Thousands of hostile connections at a real server while honest clients come and go, and floods of faults."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ipevents import Emitter, UnreadablePayload, ipem
from ipevents._core.addresses import on_loopback
from ipevents._core.handshake import ClientHandshake, FrameReader, Identity, framed
from ipevents._transport import keys

PROGRAMS = Path(__file__).parent.parent / "programs" / "flood"
KEY = "the key of the tree that is flooded"
CEILING_SECONDS = 90.0  # of a wait, reached only in a deadlock
STRANGERS, GUESTS = 4, 3
HELD = min(
    1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
)  # sockets that each of them keeps open: together more than may be in their handshake
MOST_PENDING = 1024
P99_MILLISECONDS = 250.0  # judged in the long flood only, which is for a quiet machine
MORE_MEMORY = 32 << 20
PACE_SECONDS = 0.01  # from one answer to the next event of a friend
IDLE_SECONDS, IDLE_PERCENT = 1.0, 2.0

FLOODS = [
    pytest.param(2_000, id="2000"),
    pytest.param(50_000, id="50000", marks=pytest.mark.full),
]


class Program:
    """One of the programs, which is told to begin, or to end, by a line."""

    def __init__(self, name, orders):
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / f"{name}.py"), json.dumps(orders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(PROGRAMS.parents[2]), os.environ["PYTHONPATH"])),
            },
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def say(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rest(self):
        return self.process.communicate(timeout=CEILING_SECONDS)[0].splitlines()


@pytest.fixture
def program():
    started = []

    def make(name, orders):
        started.append(Program(name, orders))
        return started[-1]

    yield make
    for one in started:
        one.process.kill()
        one.process.communicate()


def handshake(family, where, key):
    """The client's side of a handshake."""
    return ClientHandshake(
        *(key, b"", Identity("guest", 7, sys.version_info[:2], 1 << 24), os.urandom(32)),
        address=b"" if family == "AF_UNIX" else on_loopback(where),
        seals=family != "AF_UNIX",
    )


def foreign_hello(family, where):
    """The first frame of a client that has another key."""
    return framed(handshake(family, where, b"o" * 32).hello()).hex()


def recorded(family, where):
    """The two frames that a client has sent in a handshake with the server that succeeded."""
    with socket.socket(getattr(socket, family)) as sock:
        sock.settimeout(CEILING_SECONDS)
        sock.connect(where)
        ours = handshake(family, where, keys.derive(KEY.encode(), keys.CLIENT))
        frames = [framed(ours.hello())]
        sock.sendall(frames[0])
        reader = FrameReader()
        while (frame := reader.feed(sock.recv(reader.missing))) is None:
            pass
        frames.append(framed(ours.receive(frame)))
        sock.sendall(frames[1])
        while (frame := reader.feed(sock.recv(reader.missing))) is None:
            pass
        ours.receive(frame)
        assert ours.outcome is not None
    return [frame.hex() for frame in frames]


class Friend:
    """A client that was there before the flood: sends one event after another, and has each answered."""

    def __init__(self, recorder):
        self.recorder = recorder
        self.answers = []
        self.sent = 0
        self._answered = threading.Event()
        self._over = threading.Event()
        recorder.emitter.on("done", self._done)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _done(self, message, *args):
        self.answers.append(args)
        self._answered.set()

    def _run(self):
        while not self._over.is_set():
            self._answered.clear()
            for _ in range(10):
                self.recorder.emitter.sendToGrandMaster("job", self.sent)
                self.sent += 1
            while len(self.answers) < self.sent and self._answered.wait(CEILING_SECONDS):
                self._answered.clear()
            self._over.wait(PACE_SECONDS)

    def end(self):
        self._over.set()
        self._thread.join(CEILING_SECONDS)
        assert not self._thread.is_alive()


def look(recorder):
    """What the server has just now."""
    with recorder.emitter.expecting("seen", CEILING_SECONDS) as got:
        recorder.emitter.sendToGrandMaster("look")
    return got.message.args[0]


def look_until(recorder, is_settled):
    """What the server has once it is as it should be, or when the time for that is over."""
    deadline = time.monotonic() + CEILING_SECONDS
    while not is_settled(seen := look(recorder)) and time.monotonic() < deadline:
        pass
    return seen


def percentile(values, share):
    return sorted(values)[int(len(values) * share)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
@pytest.mark.parametrize("count", FLOODS)
def test_honest_clients_get_through_a_flood_and_all_is_given_back(
    recorders, program, tmp_path, port, family, count
):
    """D1, D14: silent, dripping, wrong and vanishing strangers keep no honest client out, and nothing is left.

    G5 is the long one.
    """
    path = str(tmp_path / "s")
    where = ("127.0.0.1", port) if family == "AF_INET" else path
    place = {"host": where[0], "port": port} if family == "AF_INET" else {"socketPath": path}
    options = {**place, "authkey": KEY}
    server = program("server", options)
    assert server.line() == "listens"
    friend = Friend(recorders("seen", onlyConnect=True, **options).joined())
    orders = {
        "family": family,
        "where": where,
        "count": count // STRANGERS,
        "held": HELD,
        "recorded": recorded(family, where),
        "foreign": foreign_hello(family, where),
    }
    strangers = [
        program("stranger", {**orders, "source": f"127.0.0.{10 + number}"}) for number in range(STRANGERS)
    ]
    guests = [program("guest", options) for _ in range(GUESTS)]
    for one in (*strangers, *guests):
        assert one.line() == "ready"
    before = look_until(friend.recorder, lambda seen: seen["clients"] == 1)

    for one in (*strangers, *guests):
        one.say()
    for stranger in strangers:
        assert stranger.line() == "done"
    for guest in guests:
        guest.say()
    visits = [json.loads(line) for guest in guests for line in guest.rest()]
    for stranger in strangers:
        stranger.say()
        stranger.process.wait(CEILING_SECONDS)
    after = look_until(
        friend.recorder,
        lambda seen: (
            all(seen[name] == before[name] for name in ("clients", "descriptors", "threads"))
            and sum(seen["refused"].values()) == count
        ),
    )
    friend.end()
    used = psutil.Process(server.process.pid).cpu_percent(IDLE_SECONDS)

    p50, p99 = (percentile([visit["connected"] for visit in visits], share) for share in (0.5, 0.99))
    print(
        f"{count} strangers over {family}, refused {after['refused']}, at most {after['most']} pending; "
        f"{len(visits)} guests, connected after {p50:.0f} ms (median), {p99:.0f} ms (p99); memory "
        f"{(after['memory'] - before['memory']) / (1 << 20):+.1f} MiB; the friend sent {friend.sent}"
    )
    assert [visit["errors"] for visit in visits if visit["errors"]] == []
    assert all(visit["answered"] for visit in visits)
    assert friend.answers == [(number,) for number in range(friend.sent)]
    assert (friend.recorder.of("error"), friend.recorder.of("offline")) == ([], [])
    assert 0 < after["most"] <= MOST_PENDING
    assert sum(after["refused"].values()) == count
    assert {"garbled", "wrong-key", "hung-up"} <= after["refused"].keys()
    assert after["memory"] - before["memory"] <= MORE_MEMORY
    given_back = ("clients", "pending", "descriptors", "threads")
    assert [after[name] for name in given_back] == [before[name] for name in given_back]
    assert used <= IDLE_PERCENT
    if count > 2_000:
        assert "evicted" in after["refused"]
        assert p99 <= P99_MILLISECONDS


def flooding(events):
    """The function of a worker: many events whose arguments cannot be read where they arrive."""

    class Breaks:
        def __reduce__(self):
            return int, ("no number",)

    for number in range(events):
        ipem.sendToParents(f"broken {number % 2}", Breaks())
    ipem.sendToParents("whole")


@pytest.mark.parametrize("events", [5_000])
def test_a_child_whose_events_cannot_be_read_leaves_its_parents_listener_of_error_in_peace(events):
    """At most one error of a kind in a second, of which the first comes at once; all are counted."""
    with Emitter().options(useSocket=False) as emitter:
        heard = []
        for event in ("broken 0", "broken 1"):
            emitter.on(event, lambda message: None)
        emitter.on("error", lambda message, exc: heard.append((time.monotonic(), exc)))
        with emitter.expecting("whole", CEILING_SECONDS):
            began = time.monotonic()
            emitter.worker(flooding, [events])
        took = time.monotonic() - began
        assert emitter.stats()["unreadable"] == events
    assert {str(exc)[:16] for _, exc in heard} == {"event 'broken 0'", "event 'broken 1'"}
    assert all(isinstance(exc, UnreadablePayload) for _, exc in heard)
    assert len(heard) <= 2 * (1 + took)
