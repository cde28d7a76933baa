"""A program ends cleanly while it and the other end of its connection flood each other.

All that it has sent before arrives there before its ``offline``, exactly and in order; or, where the other end
does not read in time, it is counted. The one that goes is a script, the one that stays is here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading

import pytest
from matrix import diagonal
from recorder import CEILING_SECONDS, Recorder
from scripts import running

KEY = "a key for this test only"

# It floods whoever says "begin", until it is asked to leave, or a signal ends it. Filled up, so that the kernel holds
# little of it.
GOES = """
import atexit, json

how, where, timeout = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
sent = 0
route = []
begun, leaving = threading.Event(), threading.Event()

@ipem.on("begin")
def begin(message):
    route[:] = message.pids
    begun.set()

@ipem.on("leave")
def leave(message):
    leaving.set()
    if how == "listener":
        say("stopping")  # no listener of that event is called any more
        sys.exit(3)

ipem.on("count", lambda message, number, filling: None)
told("stopping")

@atexit.register  # runs when the emitter is stopped: the hook for that comes later, with start()
def tell():
    say("told", json.dumps([sent, ipem.stats()]))

ipem.options(useSocket=True, stopTimeout=timeout, socket=where).start()
say("up", ipem.pid)
begun.wait()
while not leaving.is_set() and sent < 10_000:  # fewer than an outbox takes: there it would wait
    try:
        ipem.sendTo(route, "count", sent, bytes(2000))
    except RuntimeError:  # Closed: a stop has begun
        break
    sent += 1
    if sent == 500:
        say("floods")
while not leaving.wait(0.05):  # more than once: a signal that comes just before a wait does not end it
    pass
if how == "stop":
    ipem.stop()
elif how == "exit":
    sys.exit(3)
ipem.run()
"""

ENDS = {  # how it ends, and with which status
    "stop": 0,
    "exit": 3,
    "listener": 3,
    "int": -signal.SIGINT,
    "term": 143,
}
PLACES = {f"{family}-{role}": (family, role) for family in ("tcp", "path") for role in ("client", "server")}
IN_TIME, TOO_SHORT = 20_000, 600  # milliseconds that its stop may take


class Stays:
    """The one that stays: it floods too, and its listener is slow until ``gate`` opens."""

    def __init__(self, where, role):
        self.gate = threading.Event()
        self.recorder = Recorder(**where, onlyConnect=role == "client")
        for listener in (self.recorder.hear, self._wait):
            self.recorder.emitter.on("count", listener)
        self.recorder.emitter.on("offline", self._gone)
        self._is_over = False
        self._thread = threading.Thread(target=self._flood)

    def _gone(self, message, pid):
        self._is_over = True

    def _wait(self, message, number, filling):
        self.gate.wait(CEILING_SECONDS)

    def flood(self, pid):
        """Send until it is gone."""
        self._pid = pid
        self.recorder.emitter.sendTo([pid], "begin")
        self._thread.start()

    def _flood(self):
        for number in itertools.count():
            if self._is_over:
                return
            self.recorder.emitter.sendTo([self._pid], "count", number, bytes(2000))

    def heard(self):
        """The numbers and the end, in their order."""
        return [
            item.args[0] if item.event == "count" else item.event
            for item in self.recorder.heard
            if item.event in ("count", "offline")
        ]

    def end(self):
        self._is_over = True
        self.gate.set()
        self.recorder.emitter.stop()
        if self._thread.ident is not None:
            self._thread.join(CEILING_SECONDS)


@contextlib.contextmanager
def flooding(how, where, role, timeout):
    """A script that is to end in this way, and the one that stays; both flood each other."""
    where = {"authkey": KEY, **where}
    stays = Stays(where, "server" if role == "client" else "client")
    argv = (how, json.dumps({**where, "onlyConnect": role == "client"}), str(timeout))
    with contextlib.ExitStack() as last:
        last.callback(stays.end)
        if role == "client":
            stays.recorder.start()
        script = last.enter_context(running(GOES, args=argv))
        pid = script.word("up")
        if role == "client":
            stays.recorder.wait("online", pid)
        else:
            stays.recorder.joined()
        stays.flood(pid)
        script.wait_line("floods")
        yield script, stays, pid


def leave(how, script, stays, pid):
    if how in ("int", "term"):
        script.signal(getattr(signal, f"SIG{how.upper()}"))
    else:
        stays.recorder.emitter.sendTo([pid], "leave")
    script.wait_line("stopping")


def books(stats):
    """How many events were sent, acknowledged and lost in all."""
    counted = [stats["past"], *stats["links"].values()]
    acknowledged = sum(each["acknowledged"] for each in counted)
    return stats["sent"], acknowledged, sum(sum(each["dropped"].values()) for each in counted)


def ended(script, how):
    """Wait for its end; returns how many it has sent, and its counters."""
    result = script.ended()
    assert (result.status, result.err) == (ENDS[how], ""), f"{result.out}---\n{result.err}"
    (line,) = (line for line in result.lines if line.startswith("told"))
    return json.loads(line.removeprefix("told"))


@pytest.fixture
def at(port, place):
    """Where to meet."""
    return {"tcp": {"host": "127.0.0.1", "port": port}, "path": {"socketPath": str(place / "s")}}


@pytest.mark.parametrize(("how", "meet"), diagonal(list(ENDS), PLACES))
def test_all_that_a_program_has_sent_comes_before_its_offline(at, how, meet):
    family, role = meet
    with flooding(how, at[family], role, IN_TIME) as (script, stays, pid):
        leave(how, script, stays, pid)
        stays.gate.set()
        sent, stats = ended(script, how)
        stays.recorder.wait("offline")
        *numbers, last = stays.heard()
        assert (numbers, last) == (list(range(len(numbers))), "offline")
        # A signal may come just after a send, before that is counted there.
        assert len(numbers) - sent in ((0, 1) if how in ("int", "term") else (0,))
        assert books(stats) == (len(numbers), len(numbers), 0)
        stays.end()
        put, acknowledged, lost = books(stays.recorder.emitter.stats())
        assert put == acknowledged + lost
        handled = stats["delivered"] + stats["dropped"].get("stopped", 0)
        assert acknowledged <= handled <= put + 2


@pytest.mark.parametrize(("how", "meet"), diagonal(list(ENDS), PLACES))
def test_what_is_not_read_within_the_time_of_the_stop_is_counted(at, how, meet):
    family, role = meet
    with flooding(how, at[family], role, TOO_SHORT) as (script, stays, pid):
        leave(how, script, stays, pid)
        sent, stats = ended(script, how)
        stays.gate.set()
        stays.recorder.wait("offline")
        *numbers, last = stays.heard()
        assert (numbers, last) == (list(range(len(numbers))), "offline")
        put, acknowledged, lost = books(stats)
        assert put == acknowledged + lost
        assert acknowledged <= len(numbers) <= put
        assert put - sent in ((0, 1) if how in ("int", "term") else (0,))
        assert set(stats["past"]["dropped"]) <= {"closed", "link-cut"}
        stays.end()
        put, acknowledged, lost = books(stays.recorder.emitter.stats())
        assert put == acknowledged + lost
