"""The same work without ipevents: ``baselines.py SYSTEM WORKLOAD N [NAME=VALUE ...]``, one JSON line.

SYSTEM is

- bare: ``multiprocessing.connection``, one pickled tuple for each event;
- pyzmq: PAIR sockets over ipc://, ``send_pyobj``;
- bare_raw, pyzmq_raw: the same for blob and array only, as fast as their own means allow: the bytes
  beside the pickle, without a copy at the sender.

As with ipevents, the receiver is a callable that is called for each event, and each is counted.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Client, Listener

import measuring
from measuring import (
    ARRAY,
    BLOB,
    BLOB_16K,
    MEGABYTE,
    Meter,
    check_array,
    make_array,
    make_blobs,
    median,
    memory,
    peak,
)

CONTEXT = get_context("spawn")
KEY = b"k" * 16
BACKLOG = 256


# The two systems: an end has send and recv; a place is where children connect to.


class Bare:
    """One listener for all children of a program."""

    def __init__(self, queued):
        self.listener = Listener(family="AF_UNIX", backlog=BACKLOG, authkey=KEY)

    def spawn(self, target, *args):
        """Start a child; ``accept`` then returns the end of one of those started."""
        process = CONTEXT.Process(target=child, args=("bare", self.listener.address, 0, target, args))
        process.start()
        return process

    def accept(self):
        return self.listener.accept()


class Zmq:
    """One socket for each child."""

    def __init__(self, queued):
        self.queued = queued
        self.ends = []

    def spawn(self, target, *args):
        place = tempfile.mkdtemp()
        self.ends.append((place, ZmqEnd(f"ipc://{place}/s", self.queued, bind=True)))
        address = f"ipc://{place}/s"
        process = CONTEXT.Process(target=child, args=("pyzmq", address, self.queued, target, args))
        process.start()
        return process

    def accept(self):
        place, end = self.ends.pop(0)
        assert end.recv() == "online"
        os.unlink(f"{place}/s")
        os.rmdir(place)
        return end


class ZmqEnd:
    """A socket with the names of a Connection. ``queued``: messages at most in a queue, 0 for no limit."""

    def __init__(self, address, queued, bind):
        import zmq

        socket = self.socket = zmq.Context.instance().socket(zmq.PAIR)
        socket.setsockopt(zmq.SNDHWM, queued)
        socket.setsockopt(zmq.RCVHWM, queued)
        socket.setsockopt(zmq.LINGER, -1)
        (socket.bind if bind else socket.connect)(address)
        self.send = socket.send_pyobj
        self.recv = socket.recv_pyobj


def child(system, address, queued, target, args):
    if system == "bare":
        target(Client(address, authkey=KEY), *args)
    else:
        end = ZmqEnd(address, queued, bind=False)
        end.send("online")
        target(end, *args)


# What the children run.


def sender(end, n):
    end.recv()
    send = end.send
    for i in range(n):
        send(("ping", i, "12345", 1.5))
    end.recv()


def pong(end, n):
    def listener(event, *args):
        end.send(("pong", *args))

    for _ in range(n):
        listener(*end.recv())
    end.recv()


def sink(end, n):
    meter = Meter(n)
    recv = end.recv
    for _ in range(n):
        meter(*recv())
    end.send((meter.first, meter.last, meter.rate()))
    end.recv()


def blobs(end, put, n, size):
    made = make_blobs(size)
    end.recv()
    for i in range(n):
        put(end, made[i % len(made)])
    end.recv()


def arrays(end, put, n, size):
    put(end, make_array(1 << 17))
    end.recv()
    before = memory()
    array = make_array(size)
    put(end, array)
    end.recv()
    one = peak(before)
    for _ in range(n):
        put(end, array)
    end.recv()
    end.send((one, peak(before)))
    end.recv()


def idle(end):
    end.recv()


# How a large argument is put and got.


def put_event(end, value):
    end.send(("ping", value))


def get_event(end):
    return end.recv()


def put_bare_raw(end, value):
    if isinstance(value, bytes):
        end.send(("ping", None))
        end.send_bytes(value)
    else:
        end.send(("ping", (value.dtype.str, value.shape)))
        end.send_bytes(memoryview(value).cast("B"))


def get_bare_raw(end):
    event, kind = end.recv()
    if kind is None:
        return event, end.recv_bytes()
    import numpy as np

    array = np.empty(kind[1], kind[0])
    end.recv_bytes_into(memoryview(array).cast("B"))
    return event, array


def put_zmq_raw(end, value):
    import pickle

    buffers = []
    meta = pickle.dumps(("ping", pickle.PickleBuffer(value)), 5, buffer_callback=buffers.append)
    if not isinstance(value, bytes):
        buffers = []
        meta = pickle.dumps(("ping", value), 5, buffer_callback=buffers.append)
    end.socket.send_multipart([meta, *(buffer.raw() for buffer in buffers)], copy=False)


def get_zmq_raw(end):
    import pickle

    meta, frame = end.socket.recv_multipart(copy=False)
    data = frame.bytes if b"numpy" not in meta.bytes else bytearray(frame.buffer)  # writable
    return pickle.loads(meta.buffer, buffers=[data])


# The workloads.


def make(system, put=put_event, get=get_event):
    place_of = Bare if system == "bare" else Zmq

    def spawned(target, *args, queued=0):
        place = place_of(queued)
        process = place.spawn(target, *args)
        return process, place.accept()

    def oneway(n):
        process, end = spawned(sender, n)
        meter = Meter(n)
        end.send("go")
        recv = end.recv
        for _ in range(n):
            meter(*recv())
        end.send("end")
        process.join()
        return meter.rate()

    def pingpong(n):
        warm = 200
        process, end = spawned(pong, n + warm)
        for i in range(n + warm):
            if i == warm:
                start = time.perf_counter()
            end.send(("ping", i, "12345", 1.5))
            assert end.recv()[1] == i
        rate = n / (time.perf_counter() - start)
        end.send("end")
        process.join()
        return rate

    def fanout(n, children=4):
        return to_children(n, children)["rate"]

    def broadcast200(n, children=200):
        return to_children(n, children)

    def to_children(n, children):
        place = place_of(0)
        start = time.perf_counter()
        processes = [place.spawn(sink, n) for _ in range(children)]
        ends = [place.accept() for _ in processes]
        up = time.perf_counter() - start
        for i in range(n):
            event = ("ping", i, "12345", 1.5)
            for end in ends:
                end.send(event)
        times = [end.recv() for end in ends]
        for end in ends:
            end.send("end")
        for process in processes:
            process.join()
        took = max(last for _, last, _ in times) - min(first for first, _, _ in times)
        return {"rate": children * (n - 1) / took, "online_seconds": up}

    def relay(n):
        first, source = spawned(sender, n)
        second, target = spawned(sink, n)
        source.send("go")
        if system == "bare":
            for _ in range(n):
                target.send(source.recv())
        else:  # a router that need not look inside
            for _ in range(n):
                target.socket.send(source.socket.recv())
        rate = target.recv()[2]
        source.send("end")
        target.send("end")
        first.join()
        second.join()
        return rate

    def blob(n, size=BLOB):
        process, end = spawned(blobs, put, n, size, queued=64 * BLOB // size)
        meter = Meter(n)

        def listener(event, blob):
            assert type(blob) is bytes
            assert len(blob) == size
            meter(event)

        end.send("go")
        for _ in range(n):
            listener(*get(end))
        end.send("end")
        process.join()
        return meter.rate() * size / MEGABYTE

    def blob16k(n):
        return blob(n, BLOB_16K)

    def array(n, size=ARRAY):
        meter = Meter(n)

        def listener(event, array):
            check_array(array, size)
            meter(event)

        process, end = spawned(arrays, put, n, size, queued=2)
        get(end)
        before = memory()
        end.send("warm")
        check_array(get(end)[1], size)
        received = peak(before)
        end.send("go")
        for _ in range(n):
            listener(*get(end))
        received_stream = peak(before)
        end.send("all")
        sent, sent_stream = end.recv()
        end.send("end")
        process.join()
        return {
            "rate": meter.rate() * size / MEGABYTE,
            "size": size,
            "sender": sent,
            "receiver": received,
            "stream_sender": sent_stream,
            "stream_receiver": received_stream,
        }

    def start(n):
        times = []
        place = place_of(0)
        for _ in range(n):
            begin = time.perf_counter()
            process = place.spawn(idle)
            end = place.accept()
            times.append(time.perf_counter() - begin)
            end.send("end")
            process.join()
        return 1 / median(times)

    def online(n):
        place = place_of(0)
        begin = time.perf_counter()
        processes = [place.spawn(idle) for _ in range(n)]
        ends = [place.accept() for _ in processes]
        rate = n / (time.perf_counter() - begin)
        for end in ends:
            end.send("end")
        for process in processes:
            process.join()
        return rate

    if put is not put_event:
        return {"blob": blob, "blob16k": blob16k, "array": array}
    functions = (oneway, pingpong, fanout, relay, blob, blob16k, array, start, online, broadcast200)
    return {function.__name__: function for function in functions}


SYSTEMS = {
    "bare": lambda: make("bare"),
    "pyzmq": lambda: make("pyzmq"),
    "bare_raw": lambda: make("bare", put_bare_raw, get_bare_raw),
    "pyzmq_raw": lambda: make("pyzmq", put_zmq_raw, get_zmq_raw),
}

if __name__ == "__main__":
    measuring.run(sys.argv[1], SYSTEMS[sys.argv[1]](), sys.argv[2:])
