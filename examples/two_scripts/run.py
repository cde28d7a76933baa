"""Starts two clients and their server as separate programs, as one would by hand; ends by itself."""

import os
import secrets
import socket
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
with socket.create_server(("localhost", 0)) as free:
    port = str(free.getsockname()[1])

# A key for these three only. Each of them takes it out of its environment when it reads it.
environment = {**os.environ, "IPEVENTS_AUTHKEY": secrets.token_hex(32), "PYTHONUNBUFFERED": "1"}


def program(name, *args):
    return subprocess.Popen([sys.executable, os.path.join(here, name), port, *args], env=environment)


clients = [program("client.py", "1", "2", "3"), program("client.py", "10", "20")]
server = program("server.py")
programs = [*clients, server]
try:
    for client in clients:
        client.wait(timeout=60)
    server.terminate()  # what Ctrl-C would do by hand: run() stops the tree, the exit status is 143
    server.wait(timeout=60)
finally:
    for each in programs:
        each.kill()
print("exit status of clients and server:", *(each.returncode for each in programs))
sys.exit(any(client.returncode for client in clients))
