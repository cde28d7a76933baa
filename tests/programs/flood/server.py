"""A server that is flooded, and says what it has: descriptors, threads, memory, handshakes that go on."""

import gc
import json
import os
import sys
import threading

from ipevents import ipem
from ipevents._transport.acceptor import Acceptor

most = 0  # handshakes that went on at a time
begin = Acceptor._begin


def noting(self, sock, address):
    global most
    begin(self, sock, address)
    most = max(most, len(self._pending))


Acceptor._begin = noting


@ipem.on("job")
def job(message, *args):
    message.reply("done", *args)


@ipem.on("look")
def look(message):
    gc.collect()
    acceptor = ipem._life.public_socket.server._acceptor
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    message.reply(
        "seen",
        {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "pending": len(acceptor._pending),
            "most": most,
            "refused": ipem.stats()["refused"],
            "clients": ipem.childsOnline,
        },
    )


@ipem.on("error")
def error(message, exc):
    """Nothing: strangers are counted."""


ipem.options(socket=json.loads(sys.argv[1])).start()
print("listens", flush=True)
ipem.run()
