"""Work shared out to two processes, in one program: ``workers.py SYSTEM WORKLOAD N``, one JSON line.

SYSTEM is

- ipevents: ``ipem.pool``, an Executor, so it does exactly what the next two do;
- ProcessPoolExecutor: with a spawned process for each worker;
- loky: its ``ProcessPoolExecutor``;
- Pool: ``multiprocessing.Pool``, likewise spawned;
- joblib: ``Parallel``, which has maps only;
- pyzmq: a ventilator with a PUSH socket, workers, a sink with a PULL socket, over ipc://, and
  ``send_pyobj``; ``map1`` only. There are no futures, and the results come in any order.

WORKLOAD is one of those that ``works.py`` explains. N is the number of jobs, that of workers for
``poolready`` and ``poolagain``. Every result is checked.
"""

from __future__ import annotations

# Only what children need: they import this file, and all else is imported late.
import os
import sys
import time
from contextlib import contextmanager

import measuring

WORKERS = 2
NAP_SECONDS = 0.005
CHUNK = 1000  # for those that choose none themselves: nearly all the time is that of the jobs then


# The jobs.


def increment(x):
    return x + 1


def nap(x):
    time.sleep(NAP_SECONDS)
    return x + 1


def meet(address):
    """Call home, and stay busy until all others have called as well: no worker gets two of these."""
    from multiprocessing.connection import Client

    with Client(address) as connection:
        connection.recv()
    return os.getpid()


# Executors, and what looks like one: ours, the standard library, loky.


def gather(pool, count):
    """Return when each of so many workers has answered a job."""
    from multiprocessing.connection import Listener

    with Listener(family="AF_UNIX") as listener:
        pending = [pool.submit(meet, listener.address) for _ in range(count)]
        connections = [listener.accept() for _ in range(count)]
        for connection in connections:
            connection.send("all are here")
        assert len({each.result() for each in pending}) == count
        for connection in connections:
            connection.close()


def executors(make, chunk=None):
    """The workloads of what ``make(workers)`` makes; ``chunk`` for ``mapauto``, None if it chooses one."""
    automatic = {} if chunk is None else {"chunksize": chunk}

    def maps(function, n, **options):
        with make(WORKERS) as pool:
            gather(pool, WORKERS)
            return measuring.maps(n, lambda: listed(pool.map(function, range(n), **options)))

    def ready(count):
        begin = time.perf_counter()
        with make(count) as pool:
            gather(pool, count)
            return time.perf_counter() - begin

    def poolagain(count):
        ready(count)
        return measuring.took(ready(count))

    return {
        "map1": lambda n: maps(increment, n, chunksize=1),
        "mapauto": lambda n: maps(increment, n, **automatic),
        "mapwork": lambda n: maps(nap, n),
        "poolready": lambda count: measuring.took(ready(count)),
        "poolagain": poolagain,
    }


def listed(found):
    return found if isinstance(found, list) else list(found)


def ours():
    from ipevents import ipem

    return executors(ipem.pool)


def standard():
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return executors(lambda workers: ProcessPoolExecutor(workers, get_context("spawn")), CHUNK)


def loky():
    from loky import ProcessPoolExecutor

    return executors(ProcessPoolExecutor, CHUNK)


class Pending:
    """An AsyncResult, as a Future."""

    def __init__(self, pending):
        self.result = pending.get


class Pool:
    """A ``multiprocessing.Pool``, as an Executor."""

    def __init__(self, pool):
        self.pool = pool
        self.map = pool.map

    def submit(self, function, *args):
        return Pending(self.pool.apply_async(function, args))


def pools():
    from multiprocessing import get_context

    @contextmanager
    def make(workers):
        with get_context("spawn").Pool(workers) as pool:
            yield Pool(pool)

    return executors(make)


# joblib


def parallel():
    from joblib import Parallel, delayed

    def maps(function, n, **options):
        with Parallel(WORKERS, **options) as run:
            return measuring.maps(n, lambda: run(delayed(function)(i) for i in range(n)))

    return {
        "map1": lambda n: maps(increment, n, batch_size=1),
        "mapauto": lambda n: maps(increment, n),
        "mapwork": lambda n: maps(nap, n),
    }


# pyzmq


def zmq_socket(kind):
    import zmq

    end = zmq.Context.instance().socket(getattr(zmq, kind))
    end.setsockopt(zmq.SNDHWM, 0)
    end.setsockopt(zmq.RCVHWM, 0)
    return end


def piped(source, sink):
    """A worker: it binds where its jobs come from, so that they are shared out from the first one on."""
    jobs, results = zmq_socket("PULL"), zmq_socket("PUSH")
    jobs.bind(source)
    results.connect(sink)
    results.send_pyobj("there")
    while (x := jobs.recv_pyobj()) is not None:
        results.send_pyobj(increment(x))


def sockets():
    import tempfile
    from multiprocessing import get_context

    @contextmanager
    def started():
        """The ventilator and the sink, with workers between them, which end after the last job."""
        with tempfile.TemporaryDirectory() as place, zmq_socket("PUSH") as out, zmq_socket("PULL") as back:
            back.bind(f"ipc://{place}/sink")
            sources = [f"ipc://{place}/{number}" for number in range(WORKERS)]
            processes = [
                get_context("spawn").Process(target=piped, args=(source, f"ipc://{place}/sink"), daemon=True)
                for source in sources
            ]
            for process in processes:
                process.start()
            assert [back.recv_pyobj() for _ in sources] == ["there"] * WORKERS
            for source in sources:
                out.connect(source)
            yield out, back
            for _ in processes:  # in turn, so each gets one
                out.send_pyobj(None)
            for process in processes:
                process.join()

    def map1(n):
        with started() as (out, back):

            def run():
                for i in range(n):
                    out.send_pyobj(i)
                return [back.recv_pyobj() for _ in range(n)]

            return measuring.maps(n, run, order=sorted)

    return {"map1": map1}


SYSTEMS = {
    "ipevents": ours,
    "ProcessPoolExecutor": standard,
    "Pool": pools,
    "loky": loky,
    "joblib": parallel,
    "pyzmq": sockets,
}


def main():
    measuring.run(sys.argv[1], SYSTEMS[sys.argv[1]](), sys.argv[2:])


if __name__ == "__main__":
    # As a module's, the jobs travel by name, which is what programs do.
    import workers

    workers.main()
