"""Connects to the server at the port that it is given, cuts the connection, and waits for the next one."""

import os
import queue
import socket
import sys

from sitecustomize import begin, end

from ipevents import ipem

port = int(sys.argv[1])
came = queue.SimpleQueue()


def cut():
    """Shut the connection to the server down, as if the network had done so."""
    for name in os.listdir("/dev/fd"):
        try:
            own = socket.socket(fileno=os.dup(int(name)))
            if own.getpeername()[1] == port:
                own.shutdown(socket.SHUT_RDWR)
        except OSError:  # no socket, or not connected
            continue


@ipem.on("parent")
def parent(message, pid):
    end("reconnect")
    came.put(pid)


ipem.options(socket={"port": port, "onlyConnect": True, "delayReconnect": 50}).start()
came.get()
begin("reconnect")
cut()
came.get()
ipem.stop()
