"""The books: whatever ends how, each event is in one place of them. See README, Books, and balance.py."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest
from balance import imbalances
from ledger import tells, written
from scripts import running, wait_until

from ipevents import Emitter
from ipevents._processes.supervisor import Supervisor

KEY = b"k" * 32
CEILING = 60.0  # of every wait; reached only in a deadlock
NOTHING = {"delivered": 0, "unheard": 0, "unreadable": 0, "forwarded": 0, "dropped": 0}


@pytest.fixture
def top():
    with Emitter().options(useSocket=False, stopTimeout=5000) as emitter:
        yield emitter


class OnlyHere:
    """An argument that no other process can unpickle."""

    def __init__(self, pid=None):
        if pid not in (None, os.getpid()):
            raise ValueError("not here")

    def __reduce__(self):
        return OnlyHere, (os.getpid(),)


def online(emitter, *args, **options):
    """A worker that has said that it is online."""
    with emitter.expecting("online", CEILING, lambda message: message.from_ != emitter.pid) as got:
        child = emitter.worker(*args, **options)
    assert got.message.from_ == child.pid
    return child


def at_rest(emitter, is_settled):
    """The counters, as soon as this holds for them. They are right then, and there is no more to come."""
    found = {}

    def settled():
        found.update(emitter.stats())
        return is_settled(found)

    wait_until(settled, "the books")
    assert imbalances(found) == []
    return found


# Each event in one place


def test_what_became_of_each_event_is_told_by_its_acknowledgement(top, place):
    heard = []
    child = online(top, tells, (str(place / "ledger"),))
    for number in range(10):
        child.send("count", number)
    for number in range(5):
        child.send("nobody", number)
    for number in range(3):
        child.send("count", number, OnlyHere())
    for number in range(4):
        top.sendToChilds("nobody", number)  # goes nowhere: no process below has said that it listens to it
    top.sendToGrandMaster("up", 1)
    top.on("up", lambda message, number: heard.append(number))
    top.sendToGrandMaster("up", 2)
    top.sendTo([top.pid], "up", 3)
    child.send("last")
    stats = at_rest(top, lambda stats: stats["links"][child.pid]["acknowledged"] == 19)
    link = stats["links"][child.pid]
    assert link["acknowledgedAs"] == {**NOTHING, "delivered": 10, "unheard": 6, "unreadable": 3}
    assert (link["sent"], link["unacknowledged"], link["lost"], link["dropped"]) == (19, 0, 0, {})
    assert (stats["sent"], stats["copies"], stats["dropped"]) == (26, 19, {"filtered": 4})
    assert (stats["delivered"], stats["unheard"], heard) == (2, 1, [2, 3])
    assert written(place / "ledger") == 10


def hears_once(place):
    from ipevents import ipem

    ipem.once("count", lambda message, number: open(place, "x").close())
    ipem.start()


def test_of_a_burst_a_listener_for_once_hears_one_and_the_others_are_unheard(top, place):
    child = top.worker(hears_once, (str(place / "heard"),))
    for number in range(100):  # they wait for the online, and travel in one frame
        child.send("count", number)
    stats = at_rest(top, lambda stats: stats["links"].get(child.pid, {}).get("acknowledged") == 100)
    assert stats["links"][child.pid]["acknowledgedAs"] == {**NOTHING, "delivered": 1, "unheard": 99}


def has_a_child(place):
    from ipevents import ipem

    ipem.on("stats", lambda message: message.reply("stats", ipem.stats()))
    ipem.worker(tells, (place,))


def test_what_is_passed_on_is_in_the_books_of_the_next_link(top, place):
    with top.expecting("online", CEILING, lambda message: len(message.pids) == 3) as got:
        child = top.worker(has_a_child, (str(place / "ledger"),))
    leaf, middle, _ = route = got.message.pids
    for number in range(20):
        top.sendTo(route, "count", number)
        top.sendTo(route, "nobody", number)
        top.sendTo(("1", middle), "count", number)  # there is no such process
        top.sendToChilds("count", number)
    wait_until(lambda: written(place / "ledger") == 40)
    os.kill(int(leaf), signal.SIGKILL)
    link = at_rest(top, lambda stats: stats["links"][middle]["acknowledged"] == 80)["links"][middle]
    # What came for everybody below is not for one process only, and nobody listens to it in the middle.
    assert link["acknowledgedAs"] == {**NOTHING, "unheard": 20, "forwarded": 40, "dropped": 20}
    with top.expecting("stats", CEILING) as got:
        child.send("stats")
    (stats,) = got.message.args
    assert stats["dropped"] == {"undeliverable": 20}
    links = [*stats["links"].values(), stats["past"]]
    assert sum(link["forwarded"] for link in links) == 60


# Ends


def kill_under_flood(emitter, ledger, handled):
    """Kill a worker in the middle of a flood, once it has handled so many; returns what the books say of it."""
    before = emitter.stats()["past"]
    child = online(emitter, tells, (str(ledger),), restart=False)
    sent = 0
    while written(ledger) < handled:
        for _ in range(16 if sent < handled + 500 else 0):
            child.send("count", sent)
            sent += 1
    child.send("nobody")
    os.kill(child.process.pid, signal.SIGKILL)  # of so many processes one may have the pid of another before
    child.join(CEILING)
    after = at_rest(emitter, lambda stats: stats["past"]["sent"] == acknowledged_or_lost(stats["past"]))[
        "past"
    ]
    books = {key: after[key] - before[key] for key in ("sent", "acknowledged", "lost")}
    delivered = after["acknowledgedAs"]["delivered"] - before["acknowledgedAs"]["delivered"]
    dropped = sum(after["dropped"].values()) - sum(before["dropped"].values())
    assert books["acknowledged"] + dropped == sent + 1
    assert delivered <= written(ledger) <= delivered + books["lost"]
    return books


def acknowledged_or_lost(link):
    return link["acknowledged"] + link["lost"]


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(10, 0), *(pytest.param(500, seed, marks=pytest.mark.slow) for seed in range(1, 5))],
)
def test_a_killed_child_takes_nothing_along_but_what_it_had_not_acknowledged(top, place, kills, seed):
    dice = random.Random(seed)
    lost = []
    top.on("error", lambda message, error: None)  # each death is one
    for number in range(kills):
        ledger = place / f"{number}"
        lost.append(kill_under_flood(top, ledger, dice.randrange(1, 300))["lost"])
        ledger.unlink()
    assert sum(lost) > 0
    stats = top.stats()
    assert stats["past"]["sent"] + stats["past"]["dropped"].get("link-cut", 0) >= stats["sent"]
    assert set(stats["past"]["dropped"]) == {"link-cut"}


@pytest.mark.parametrize("children", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_the_books_of_a_process_are_closed_when_the_next_one_is_online(top, place, children):
    top.on("error", lambda message, error: None)
    handled = sent = 0
    for number in range(children):
        ledger = place / f"{number}"
        child = online(top, tells, (str(ledger),), restart=True, delayRestart=0)
        for _ in range(3):  # more young deaths than that are waited for
            before = child.pid
            with top.expecting("online", CEILING, lambda message, before=before: message.from_ != before):
                while written(ledger) < handled + 50:
                    child.send("count", sent)
                    sent += 1
                os.kill(int(before), signal.SIGKILL)
            handled = written(ledger)
            stats = top.stats()
            assert imbalances(stats) == []
            assert stats["past"]["sent"] == acknowledged_or_lost(stats["past"])
        child.kill()
        child.join(CEILING)
        handled = 0
    past = top.stats()["past"]
    assert past["acknowledged"] + sum(past["dropped"].values()) == sent


def hears_large_ones():
    from ipevents import ipem

    ipem.on("large", lambda message, data: None)
    ipem.start()


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_a_large_event_is_acknowledged_also_by_a_child_that_says_nothing(top, size):
    child = online(top, hears_large_ones)
    child.send("large", bytes(size))
    stats = at_rest(top, lambda stats: stats["links"][child.pid]["acknowledged"] == 1)
    assert stats["links"][child.pid]["acknowledgedAs"] == {**NOTHING, "delivered": 1}


def sends_up():
    from ipevents import ipem

    ipem.on("count", lambda message, number: None)
    ipem.sendToParents("hang")
    ipem.run()


def test_a_listener_here_that_does_not_return_leaves_the_books_right():
    begun, gate = threading.Event(), threading.Event()
    emitter = Emitter().options(useSocket=False, stopTimeout=300)
    emitter.on("hang", lambda message: (begun.set(), gate.wait(CEILING)))
    with emitter:
        child = emitter.worker(sends_up)
        assert begun.wait(CEILING)
        for number in range(50):
            child.send("count", number)
    stats = emitter.stats()
    assert imbalances(stats, handles=True) == []
    assert stats["past"]["sent"] == acknowledged_or_lost(stats["past"])
    gate.set()
    at_rest(emitter, lambda stats: stats["past"]["receivedAs"]["delivered"] == 1)


def test_after_a_fault_of_the_supervisor_what_waits_is_counted(place, monkeypatch, caplog):
    def fails(*args):
        raise MemoryError

    with Emitter().options(useSocket=False, stopTimeout=2000) as emitter:
        emitter.on("error", lambda message, error: None)
        child = online(emitter, tells, (str(place / "ledger"),), restart=True, delayRestart=60_000)
        with emitter.expecting("offline", CEILING):
            os.kill(int(child.pid), signal.SIGKILL)
        for number in range(7):
            child.send("count", number)
        monkeypatch.setattr(Supervisor, "_end_children", fails)
    stats = emitter.stats()
    assert imbalances(stats) == []
    assert sum(stats["past"]["dropped"].values()) == stats["sent"] == 7


CLIENT = """
import os
ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
ipem.on("count", lambda message, number: os.write(ledger, b"."))

def flood(message):
    def run():
        number = 0
        while True:
            ipem.sendToParents("up", number)
            number += 1
    threading.Thread(target=run, daemon=True).start()

ipem.on("flood", flood)
port, within = map(int, sys.argv[2:])
ipem.options(useSocket=True, socket={"host": "127.0.0.1", "port": port, "authkey": b"k" * 32, "resumeWithin": within})
ipem.start()
ipem.run()
"""


@pytest.mark.parametrize("resume_within", [0, 200])
def test_a_killed_client_takes_nothing_along_either(recorders, port, place, resume_within):
    server = recorders(port=port, authkey=KEY, resumeWithin=resume_within).start()
    numbers = []
    server.emitter.on("up", lambda message, number: numbers.append(number))
    ledger = place / "ledger"
    with running(CLIENT, args=(str(ledger), str(port), str(resume_within))) as script:
        pid = server.wait("online", count=2).from_
        server.emitter.sendToChild(pid, "flood")
        sent = 1
        while written(ledger) < 500 or len(numbers) < 500:
            server.emitter.sendToChild(pid, "count", sent)
            sent += 1
        script.signal(signal.SIGKILL)
        server.wait("offline")
        script.end()
    stats = at_rest(server.emitter, lambda stats: not stats["links"])
    past = stats["past"]
    assert past["sent"] == acknowledged_or_lost(past)
    assert past["acknowledged"] + sum(past["dropped"].values()) == stats["copies"] == sent
    assert set(past["dropped"]) <= {"link-cut", "disconnected"}
    delivered = past["acknowledgedAs"]["delivered"]
    assert delivered <= 1 + written(ledger) <= delivered + past["lost"]
    assert past["receivedAs"]["delivered"] == past["received"] == len(numbers)
    assert numbers == list(range(len(numbers)))


def hangs(place):
    from ipevents import ipem

    def count(message, number):
        open(place, "w").close()
        threading.Event().wait()

    ipem.on("count", count)
    ipem.start()


def test_what_a_hung_child_was_sent_is_counted_where_a_stop_kills_it(place):
    with Emitter().options(useSocket=False, stopTimeout=300) as emitter:
        child = online(emitter, hangs, (str(place / "begun"),))
        child.send("count", 0)
        wait_until((place / "begun").exists)
        for number in range(49):
            child.send("count", number)
    stats = emitter.stats()
    assert imbalances(stats) == []
    past = stats["past"]
    assert (past["acknowledged"], past["dropped"]) == (0, {"stopped": 50})
    assert past["sent"] == past["lost"] == 50


def test_what_waits_for_a_child_whose_starts_fail_is_counted(top, place):
    with top.expecting("error", CEILING) as got:
        child = top.worker(os._exit, (3,), restart=False)
        for number in range(7):
            child.send("count", number)
    child.join(CEILING)
    assert type(got.message.args[0]).__name__ == "StartFailed"
    stats = top.stats()
    assert imbalances(stats) == []
    assert (stats["sent"], stats["past"]["acknowledged"], stats["past"]["dropped"]) == (7, 0, {"link-cut": 7})


def test_what_waits_for_the_next_process_of_a_child_is_told_and_goes_to_it(top, place):
    ledger = place / "ledger"
    child = online(top, tells, (str(ledger),), restart=True, delayRestart=60_000)
    with top.expecting("offline", CEILING):
        os.kill(int(child.pid), signal.SIGKILL)
    for number in range(5):
        child.send("count", number)
    stats = top.stats()
    assert imbalances(stats) == []
    assert (stats["waiting"], stats["copies"], stats["links"]) == (5, 5, {})
    child.stop(1000)
    assert top.stats()["past"]["dropped"] == {"link-cut": 5}


def ends():
    from ipevents import ipem

    def count(message, number):
        if number == 20:
            raise SystemExit

    ipem.on("count", count)
    ipem.start()


def test_what_came_after_a_listener_has_ended_the_process_is_dropped_there(top):
    child = top.worker(ends, restart=False)
    for number in range(50):
        child.send("count", number)
    child.join(CEILING)
    past = at_rest(top, lambda stats: not stats["links"])["past"]
    assert (past["sent"], past["acknowledged"], past["lost"]) == (50, 50, 0)
    assert past["acknowledgedAs"] == {**NOTHING, "delivered": 21, "dropped": 29}


def ends_late():
    from ipevents import ipem
    from ipevents._lifecycle import drain

    flush, flushing = drain.flush, threading.Event()

    def flush_late(node, deadline):
        flushing.set()
        flush(node, deadline)

    def end(message):
        ipem.stop()
        flushing.wait(CEILING)

    drain.flush = flush_late
    ipem.on("end", end)
    ipem.options(stopTimeout=300).start()  # so long the stop waits for the listener before that


def test_the_event_whose_listener_ends_the_process_is_acknowledged_although_it_returns_late(top):
    child = top.worker(ends_late, restart=False)
    child.send("end")
    child.join(CEILING)
    past = at_rest(top, lambda stats: not stats["links"])["past"]
    assert (past["sent"], past["acknowledged"], past["lost"]) == (1, 1, 0)


def test_the_check_finds_what_is_missing():
    stats = Emitter().stats()
    assert imbalances(stats) == []
    for key, value in (("sent", 1), ("acknowledged", 1), ("lost", 1), ("received", 1), ("forwarded", 1)):
        assert imbalances({**stats, "past": {**stats["past"], key: value}}), key
    for key in ("copies", "waiting"):
        assert imbalances({**stats, key: 1}), key
    assert imbalances({**stats, "dropped": {"filtered": 1}})
