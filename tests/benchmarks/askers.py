"""Requests with answers without ipevents: ``askers.py SYSTEM WORKLOAD N``, one JSON line.

SYSTEM is

- Pool: ``multiprocessing.Pool`` with one worker, ``apply`` and ``apply_async``;
- ProcessPoolExecutor: one worker, ``submit``;
- loky: its reusable executor with one worker, ``submit``;
- pyzmq: over ipc://, ``send_pyobj``; a REQ and a REP socket for ``ask``. For ``askflood`` a DEALER that
  writes all requests and then reads the answers, and a ROUTER: no futures, and no thread that reads;
- rpyc: over a Unix socket, a function of the other side and ``rpyc.async_`` of it.

WORKLOAD is ``ask`` or ``askflood``, see ``measuring.py``. ``workloads.py`` has both for ipevents, and as
``ask_by_hand`` and ``askflood_by_hand`` for what a user can make of events.
"""

from __future__ import annotations

import pickle
import socket
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import measuring

CONTEXT = get_context("spawn")


def square(n):
    return n * n


# The standard library, and loky.


def pools():
    def ask(n):
        with CONTEXT.Pool(1) as pool:
            return measuring.asks(n, lambda i: pool.apply(square, (i,)))

    def askflood(n):
        with CONTEXT.Pool(1) as pool:
            return measuring.floods(
                n, lambda i: pool.apply_async(square, (i,)), lambda pending: pending.get()
            )

    return ask, askflood


def executors(make):
    def ask(n):
        with make() as executor:
            return measuring.asks(n, lambda i: executor.submit(square, i).result())

    def askflood(n):
        with make() as executor:
            return measuring.floods(n, lambda i: executor.submit(square, i))

    return ask, askflood


def loky():
    from loky import get_reusable_executor

    return executors(lambda: get_reusable_executor(max_workers=1))


# pyzmq


def zmq_socket(kind):
    import zmq

    end = zmq.Context.instance().socket(getattr(zmq, kind))
    end.setsockopt(zmq.SNDHWM, 0)  # no limit: a ROUTER drops what would be above it
    end.setsockopt(zmq.RCVHWM, 0)
    return end


def replier(address):
    end = zmq_socket("REP")
    end.connect(address)
    while (n := end.recv_pyobj()) is not None:
        end.send_pyobj(square(n))


def router(address):
    end = zmq_socket("ROUTER")
    end.connect(address)
    while True:
        asker, request = end.recv_multipart()
        number, n = pickle.loads(request)
        if n is None:
            return
        end.send_multipart([asker, pickle.dumps((number, square(n)), 5)])


def sockets():
    @contextmanager
    def asking(kind, target, last):
        """A socket with a child at its other end, which ends after the last request."""
        with tempfile.TemporaryDirectory() as place, zmq_socket(kind) as end:
            address = f"ipc://{place}/s"
            end.bind(address)
            process = CONTEXT.Process(target=target, args=(address,), daemon=True)
            process.start()
            yield end
            end.send_pyobj(last)
            process.join()

    def ask(n):
        with asking("REQ", replier, None) as end:

            def request(i):
                end.send_pyobj(i)
                return end.recv_pyobj()

            return measuring.asks(n, request)

    def askflood(n):
        with asking("DEALER", router, (0, None)) as end:

            def submit(i):
                end.send_pyobj((i, i))
                return i

            def receive(expected):  # one worker answers in order
                number, answer = end.recv_pyobj()
                assert number == expected
                return answer

            return measuring.floods(n, submit, receive)

    return ask, askflood


# rpyc


def service(end):
    import rpyc

    class Squares(rpyc.Service):
        exposed_square = staticmethod(square)

    rpyc.connect_stream(rpyc.SocketStream(end), Squares).serve_all()


def remotes():
    import rpyc

    @contextmanager
    def connected():
        """A connection to a child, which ends with it."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = CONTEXT.Process(target=service, args=(theirs,), daemon=True)
            process.start()
        with rpyc.connect_stream(rpyc.SocketStream(ours)) as connection:
            yield connection
        process.join()

    def ask(n):
        with connected() as connection:
            # The function is looked up once: each time would be a round trip of its own.
            return measuring.asks(n, connection.root.square)

    def askflood(n):
        with connected() as connection:
            # A thread reads meanwhile. Without it both sides would block in writing, for ever.
            reader = rpyc.BgServingThread(connection, serve_interval=1.0, sleep_interval=0.0)
            submit = rpyc.async_(connection.root.square)
            rate = measuring.floods(n, submit, lambda pending: pending.value)
            reader.stop()
        return rate

    return ask, askflood


SYSTEMS = {
    "Pool": pools,
    "ProcessPoolExecutor": lambda: executors(lambda: ProcessPoolExecutor(1, CONTEXT)),
    "loky": loky,
    "pyzmq": sockets,
    "rpyc": remotes,
}


def main():
    functions = SYSTEMS[sys.argv[1]]()
    measuring.run(sys.argv[1], {function.__name__: function for function in functions}, sys.argv[2:])


if __name__ == "__main__":
    # As a module's, square travels to every worker by name: loky sends a script's functions by value.
    import askers

    askers.main()
