"""The peers' workloads with ipevents: ``workloads.py WORKLOAD N`` prints one JSON line with a rate.

Through the public API only, with default options but for the socket, which a tree of children does not
need. Every event is counted at its receiver; a lost one fails the run.
"""

from __future__ import annotations

import json
import queue
import sys
import time

from ipevents import ipem


class Meter:
    """Counts handled events; the rate is that of n - 1 events from the first to the last."""

    def __init__(self, n):
        self.n, self.count, self.first, self.last = n, 0, 0.0, 0.0

    def __call__(self, message, *args):
        count = self.count = self.count + 1
        if count == 1:
            self.first = time.perf_counter()
        elif count == self.n:
            self.last = time.perf_counter()
            ipem.emit("metered")

    def rate(self):
        assert self.count == self.n, (self.count, self.n)
        return (self.n - 1) / (self.last - self.first)


# What the children run.


def sender(n, send):
    def go(message):
        emit = getattr(ipem, send)
        for i in range(n):
            emit("ping", i, "12345", 1.5)

    with ipem.expecting("go") as started:
        pass
    go(started.message)
    ipem.waitFor("end")


def pong():
    @ipem.on("ping")
    def ping(message, *args):
        ipem.sendToParents("pong", *args)


def sink(n):
    meter = Meter(n)
    ipem.on("ping", meter)

    @ipem.on("metered")
    def metered(message):
        ipem.sendToParents("times", meter.first, meter.last, meter.rate())


# The workloads: number of events in, rate out.


def oneway(n):
    meter = Meter(n)
    ipem.on("ping", meter)
    child = ipem.worker(sender, (n, "sendToParents"))
    with ipem.expecting("metered"):
        child.send("go")
    child.send("end")
    return meter.rate()


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
        answers.get()
    return n / (time.perf_counter() - start)


def fanout(n, children=4):
    times = []
    ipem.on("times", lambda message, *args: times.append(args))
    for _ in range(children):
        with ipem.expecting("online"):
            ipem.worker(sink, (n,))
    with ipem.expecting("times", where=lambda message, *args: len(times) == children):
        for i in range(n):
            ipem.sendToChilds("ping", i, "12345", 1.5)
    return children * (n - 1) / (max(last for _, last, _ in times) - min(first for first, _, _ in times))


def relay(n):
    with ipem.expecting("online"):
        ipem.worker(sink, (n,))
    with ipem.expecting("online"):
        child = ipem.worker(sender, (n, "sendToSiblings"))
    with ipem.expecting("times") as times:
        child.send("go")
    child.send("end")
    return times.message.args[2]


WORKLOADS = {function.__name__: function for function in (oneway, pingpong, fanout, relay)}


def main():
    name, n = sys.argv[1], int(sys.argv[2])
    ipem.options(useSocket=False).start()
    rate = WORKLOADS[name](n)
    ipem.stop()
    print(json.dumps({"peer": "ipevents", "workload": name, "n": n, "rate": round(rate, 1)}), flush=True)


main()
