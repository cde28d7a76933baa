"""The peers' workloads with ipevents, and more: ``workloads.py WORKLOAD N [NAME=VALUE ...]``.

Prints one JSON line with a rate. Through the public API only, with default options but for the socket,
which a tree of children does not need. Every event is counted at its receiver; a lost one, or one too
many, fails the run. Rates are per second, those of blob and array in MB (10**6 bytes) per second.

``NAME=VALUE`` are further arguments of a workload's function, for example ``broadcast200 100 children=5``.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import sys
import tempfile
import threading
import time
from concurrent.futures import Future

import measuring
from measuring import (
    ARRAY,
    BLOB,
    BLOB_16K,
    MEGABYTE,
    check_array,
    make_array,
    make_blobs,
    median,
    memory,
    peak,
)

from ipevents import ipem

SMALL_ARRAY = 1 << 17  # large enough to go the way of large ones


def metered(n):
    """A listener that counts, and emits ``metered`` at the last event."""
    return measuring.Meter(n, lambda: ipem.emit("metered"))


# What the children run.


def sender(n, send):
    with ipem.expecting("go"):
        pass
    flood(n, send)


def flood(n, send):
    emit = getattr(ipem, send)
    with ipem.expecting("end"):
        for i in range(n):
            emit("ping", i, "12345", 1.5)


def pong():
    @ipem.on("ping")
    def ping(message, *args):
        ipem.sendToParents("pong", *args)


def sink(n):
    def tell():
        ipem.sendToParents("times", meter.first, meter.last, meter.rate())

    meter = measuring.Meter(n, tell)
    ipem.on("ping", meter)

    @ipem.on("recount")
    def recount(message):
        ipem.sendToParents("count", meter.count)


def level(below, function, args):
    """One process of a chain that has ``below`` more below it; the last one runs the function."""
    if below:
        ipem.worker(level, (below - 1, function, args))
        ipem.run()
    else:
        function(*args)


def blobs(n, size):
    made = make_blobs(size)
    with ipem.expecting("go"):
        pass
    with ipem.expecting("end"):
        for i in range(n):
            ipem.sendToParents("ping", made[i % len(made)])


def arrays(n, size):
    with ipem.expecting("warm"):  # imports are done, and memory is measured, before the first
        ipem.sendToParents("warm", make_array(SMALL_ARRAY))
    before = memory()
    array = make_array(size)
    with ipem.expecting("go"):
        ipem.sendToParents("one", array)
    one = peak(before)
    for _ in range(n):
        ipem.sendToParents("ping", array)
    with ipem.expecting("end"):
        ipem.sendToParents("all")
    ipem.sendToParents("memory", one, peak(before))


def squares():
    @ipem.answer("square")
    def square(message, n):
        return n * n


def squares_by_hand():
    @ipem.on("ask")
    def ask(message, number, n):
        message.reply("answer", number, n * n)


def nothing():
    ipem.start()


def client(n, options):
    """A process of its own that connects to the public socket."""
    told = threading.Event()
    ipem.once("go", lambda message: told.set())  # before start(): known to the server before our online
    with ipem.options(socket=options):
        told.wait()
        flood(n, "sendToParents")


# The workloads: number of events in, rate out, or a dict with more than the rate.


def oneway(n):
    meter = metered(n)
    ipem.on("ping", meter)
    child = ipem.worker(sender, (n, "sendToParents"))
    with ipem.expecting("metered"):
        child.send("go")
    child.send("end")
    child.join()
    return meter.rate()


def oneway_socket(n, options):
    """``oneway`` from a client of the public socket."""
    options = {**options, "authkey": os.urandom(32)}
    ipem.stop()
    ipem.options(useSocket=True, socket=options).start()
    meter = metered(n)
    ipem.on("ping", meter)
    process = multiprocessing.get_context("spawn").Process(target=client, args=(n, options))
    with ipem.expecting("online", where=lambda message: message.from_ != ipem.pid):
        process.start()
    with ipem.expecting("metered"):
        ipem.sendToChilds("go")
    ipem.sendToChilds("end")
    process.join()
    return meter.rate()


def oneway_tcp(n, port=7123):
    return oneway_socket(n, {"port": port})


def oneway_unix(n):
    with tempfile.TemporaryDirectory() as place:
        return oneway_socket(n, {"socketPath": os.path.join(place, "socket")})


def pingpong(n):
    answers = queue.SimpleQueue()
    ipem.on("pong", lambda message, *args: answers.put(args))
    child = ipem.worker(pong)
    for i in range(200):
        child.send("ping", i, "12345", 1.5)
        answers.get()
    start = time.perf_counter()
    for i in range(n):
        child.send("ping", i, "12345", 1.5)
        assert answers.get()[0] == i
    rate = n / (time.perf_counter() - start)
    assert answers.empty()
    return rate


def chain(n):
    """``pingpong`` where the parent's listener sends the next one: no main thread takes part."""
    warm = 200
    times = []

    @ipem.on("pong")
    def ponged(message, i, *args):
        if i == warm:
            times.append(time.perf_counter())
        if i < warm + n:
            message.reply("ping", i + 1, *args)
        else:
            times.append(time.perf_counter())
            ipem.emit("chained")

    child = ipem.worker(pong)
    with ipem.expecting("chained"):
        child.send("ping", 0, "12345", 1.5)
    start, end = times
    return n / (end - start)


def fanout(n, children=4):
    return _to_children(n, children, ipem.sendToChilds)["rate"]


def broadcast200(n, children=200):
    return _to_children(n, children, ipem.broadcast)


def _to_children(n, children, send):
    times = []
    counts = []
    online = []
    ipem.on("times", lambda message, *args: times.append(args))
    ipem.on("count", lambda message, count: counts.append(count))
    ipem.on("online", lambda message: online.append(message.from_))
    start = time.perf_counter()
    with ipem.expecting("online", where=lambda message: len(online) == children):
        for _ in range(children):
            ipem.worker(sink, (n,))
    up = time.perf_counter() - start
    with ipem.expecting("times", where=lambda message, *args: len(times) == children):
        for i in range(n):
            send("ping", i, "12345", 1.5)
    with ipem.expecting("count", where=lambda message, count: len(counts) == children):
        send("recount")
    assert counts == [n] * children, counts
    took = max(last for _, last, _ in times) - min(first for first, _, _ in times)
    return {"rate": children * (n - 1) / took, "online_seconds": up}


def relay(n):
    with ipem.expecting("online"):
        ipem.worker(sink, (n,))
    with ipem.expecting("online"):
        child = ipem.worker(sender, (n, "sendToSiblings"))
    with ipem.expecting("times") as times:
        child.send("go")
    child.send("end")
    child.join()
    with ipem.expecting("count") as count:
        ipem.sendToChilds("recount")
    assert count.message.args == (n,), count.message.args
    return times.message.args[2]


def bubble16(n, levels=16):
    meter = metered(n)
    ipem.on("ping", meter)
    with ipem.expecting("online", where=lambda message: len(message.pids) == levels + 1) as leaf:
        ipem.worker(level, (levels - 1, sender, (n, "bubble")))
    with ipem.expecting("metered"):
        leaf.message.reply("go")
    with ipem.expecting("offline", where=lambda message, pid: pid == leaf.message.from_):
        leaf.message.reply("end")
    return meter.rate()


def blob(n, size=BLOB):
    meter = metered(n)

    @ipem.on("ping")
    def ping(message, blob):
        assert type(blob) is bytes
        assert len(blob) == size
        meter(message)

    child = ipem.worker(blobs, (n, size))
    with ipem.expecting("metered"):
        child.send("go")
    child.send("end")
    child.join()
    return meter.rate() * size / MEGABYTE


def blob16k(n):
    return blob(n, BLOB_16K)


def array(n, size=ARRAY):
    """The peaks of memory are those of the first one, which travels alone; ``stream_...`` those of all."""
    meter = metered(n)
    before = []

    @ipem.on("warm")
    def warm(message, array):
        check_array(array, SMALL_ARRAY)
        before.append(memory())
        message.reply("warm")

    @ipem.on("one")
    def one(message, array):
        check_array(array, size)
        ipem.emit("came")

    @ipem.on("ping")
    def ping(message, array):
        check_array(array, size)
        meter(message)

    with ipem.expecting("came"):
        child = ipem.worker(arrays, (n, size))
    received = peak(before[0])
    with ipem.expecting("all"):
        child.send("go")
    received_stream = peak(before[0])
    with ipem.expecting("memory") as sent:
        child.send("end")
    child.join()
    return {
        "rate": meter.rate() * size / MEGABYTE,
        "size": size,
        "sender": sent.message.args[0],
        "receiver": received,
        "stream_sender": sent.message.args[1],
        "stream_receiver": received_stream,
    }


def ask(n):
    child = ipem.worker(squares)
    return measuring.asks(n, lambda i: child.request("square", i))


def askflood(n):
    child = ipem.worker(squares)
    return measuring.floods(n, lambda i: child.requestAsync("square", i))


class AskerByHand:
    """Requests made of two events, with a Future for each that waits for its answer."""

    def __init__(self):
        self.numbers = itertools.count()
        self.waiting = {}
        self.child = ipem.worker(squares_by_hand)
        ipem.on("answer", self.answered)

    def requestAsync(self, n):
        number, future = next(self.numbers), Future()
        self.waiting[number] = future
        self.child.send("ask", number, n)
        return future

    def answered(self, message, number, value):
        self.waiting.pop(number).set_result(value)


def ask_by_hand(n):
    asker = AskerByHand()
    return measuring.asks(n, lambda i: asker.requestAsync(i).result())


def askflood_by_hand(n):
    return measuring.floods(n, AskerByHand().requestAsync)


def start(n):
    """One child after the other: ``worker()`` to its ``online``; starts per second by the median time."""
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        with ipem.expecting("online"):
            child = ipem.worker(nothing, restart=False)
        times.append(time.perf_counter() - begin)
        child.stop()
    return 1 / median(times)


def online(n):
    """All ``n`` children at once, which do nothing but come online; children per second."""
    there = []
    ipem.on("online", lambda message: there.append(message.from_))
    begin = time.perf_counter()
    with ipem.expecting("online", where=lambda message: len(there) == n):
        for _ in range(n):
            ipem.worker(nothing, restart=False)
    rate = n / (time.perf_counter() - begin)
    assert len(set(there)) == n
    return rate


WORKLOADS = {
    function.__name__: function
    for function in (
        *(oneway, pingpong, fanout, relay, chain, bubble16, blob, blob16k, array),
        *(start, online, broadcast200, oneway_tcp, oneway_unix),
        *(ask, askflood, ask_by_hand, askflood_by_hand),
    )
}


def main():
    ipem.options(useSocket=False).start()
    measuring.run("ipevents", WORKLOADS, sys.argv[1:])
    ipem.stop()


if __name__ == "__main__":
    # As a module's, the functions above travel to the children by name, which is what programs do.
    import workloads

    workloads.main()
