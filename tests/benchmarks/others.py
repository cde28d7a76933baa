"""Four workloads with what else is at hand: ``others.py SYSTEM WORKLOAD N [NAME=VALUE ...]``, one JSON line.

SYSTEM is

- queue: ``multiprocessing.Queue``, whose thread writes in the background, one queue for each direction;
- execnet: its channels to ``popen`` gateways.

As in ``baselines.py`` the receiver is a callable that is called for each event, and each is counted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing import get_context

import measuring
from measuring import Meter

CONTEXT = get_context("spawn")
HERE = os.path.dirname(os.path.abspath(__file__))
WARM = 200  # round trips before those that are measured


def rate_of(times, n):
    """Of ``n`` events to each of those who say when they had their first and their last one."""
    return len(times) * (n - 1) / (max(last for _, last in times) - min(first for first, _ in times))


def round_trips(n, send, receive):
    for i in range(n + WARM):
        if i == WARM:
            start = time.perf_counter()
        send(("ping", i, "12345", 1.5))
        assert receive()[1] == i
    return n / (time.perf_counter() - start)


# multiprocessing.Queue: what the children run, and the workloads.


def sender(events, go, n):
    go.get()
    for i in range(n):
        events.put(("ping", i, "12345", 1.5))


def pong(events, answers):
    while (event := events.get()) is not None:
        answers.put(("pong", *event[1:]))


def sink(events, times, n):
    times.put(None)  # it is there
    meter = Meter(n)
    for _ in range(n):
        meter(*events.get())
    times.put((meter.first, meter.last))


def queues():
    def spawned(target, *args):
        process = CONTEXT.Process(target=target, args=args)
        process.start()
        return process

    def oneway(n):
        events, go = CONTEXT.Queue(), CONTEXT.Queue()
        process = spawned(sender, events, go, n)
        meter = Meter(n)
        go.put("go")
        for _ in range(n):
            meter(*events.get())
        process.join()
        return meter.rate()

    def pingpong(n):
        events, answers = CONTEXT.Queue(), CONTEXT.Queue()
        process = spawned(pong, events, answers)
        rate = round_trips(n, events.put, answers.get)
        events.put(None)
        process.join()
        return rate

    def fanout(n, children=4):
        ways, times = [CONTEXT.Queue() for _ in range(children)], CONTEXT.Queue()
        processes = [spawned(sink, way, times, n) for way in ways]
        for _ in processes:
            times.get()
        for i in range(n):
            for way in ways:
                way.put(("ping", i, "12345", 1.5))
        found = [times.get() for _ in processes]
        for process in processes:
            process.join()
        return rate_of(found, n)

    def relay(n):
        up, down, go, times = (CONTEXT.Queue() for _ in range(4))
        processes = spawned(sender, up, go, n), spawned(sink, down, times, n)
        times.get()
        go.put("go")
        for _ in range(n):
            down.put(up.get())
        found = times.get()
        for process in processes:
            process.join()
        return rate_of([found], n)

    return oneway, pingpong, fanout, relay


# execnet: what the gateways run travels as source text, so each function stands for itself.


def gateway_sender(channel, n):
    channel.receive()
    for i in range(n):
        channel.send(("ping", i, "12345", 1.5))
    channel.receive()


def gateway_pong(channel):
    for event in channel:
        channel.send(("pong", *event[1:]))


def gateway_sink(channel, n, folder):
    import sys

    sys.path.insert(0, folder)
    from measuring import Meter

    channel.send(None)  # it is there
    meter = Meter(n)
    for _ in range(n):
        meter(*channel.receive())
    channel.send((meter.first, meter.last))
    channel.receive()


def gateways():
    import execnet

    def opened(function, **arguments):
        return execnet.makegateway().remote_exec(function, **arguments)

    def close(*channels):
        for channel in channels:
            channel.send("end")
            channel.gateway.exit()

    def oneway(n):
        channel = opened(gateway_sender, n=n)
        done = threading.Event()
        meter = Meter(n, done.set)
        channel.setcallback(lambda event: meter(*event))
        channel.send("go")
        done.wait()
        close(channel)
        return meter.rate()

    def pingpong(n):
        channel = opened(gateway_pong)
        rate = round_trips(n, channel.send, channel.receive)
        channel.gateway.exit()
        return rate

    def fanout(n, children=4):
        channels = [opened(gateway_sink, n=n, folder=HERE) for _ in range(children)]
        for channel in channels:
            channel.receive()
        for i in range(n):
            for channel in channels:
                channel.send(("ping", i, "12345", 1.5))
        found = [channel.receive() for channel in channels]
        close(*channels)
        return rate_of(found, n)

    def relay(n):
        source, target = opened(gateway_sender, n=n), opened(gateway_sink, n=n, folder=HERE)
        target.receive()
        source.send("go")
        for _ in range(n):
            target.send(source.receive())
        found = target.receive()
        close(source, target)
        return rate_of([found], n)

    return oneway, pingpong, fanout, relay


SYSTEMS = {"queue": queues, "execnet": gateways}

if __name__ == "__main__":
    functions = SYSTEMS[sys.argv[1]]()
    measuring.run(sys.argv[1], {function.__name__: function for function in functions}, sys.argv[2:])
