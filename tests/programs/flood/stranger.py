"""One of many strangers at a socket: opens hostile connections as fast as it can.

It imports nothing of the library, and knows no key. What it sends is in its arguments.
"""

import collections
import itertools
import json
import os
import socket
import sys

orders = json.loads(sys.argv[1])
hello, proof = (bytes.fromhex(frame) for frame in orders["recorded"])  # of a handshake that succeeded
foreign = bytes.fromhex(orders["foreign"])  # the first frame of a client with another key
ways = itertools.cycle(["silent", "drip", "garbage", "wrong key", "replay", "half", "gone"])
held = collections.deque()  # the sockets that stay open, the oldest first
dripping = collections.deque(maxlen=orders["held"])


def connect():
    sock = socket.socket(getattr(socket, orders["family"]))
    if orders["family"] != "AF_UNIX":
        # Each stranger has an address of its own, or one alone would have used up its ports.
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((orders["source"], 0))
        sock.connect(tuple(orders["where"]))
    else:
        sock.connect(orders["where"])
    sock.setblocking(False)
    return sock


def say(sock, data):
    try:
        sock.send(data)
    except OSError:
        return  # refused, evicted, or too late


print("ready", flush=True)
sys.stdin.readline()
for _ in range(orders["count"]):
    way = next(ways)
    sock = connect()
    if way == "gone":
        sock.close()
        continue
    if way == "drip":
        dripping.append((sock, iter(hello)))
    elif way == "garbage":
        say(sock, os.urandom(64))
    elif way == "wrong key":
        say(sock, foreign + proof)
    elif way == "replay":
        say(sock, hello + proof)
    elif way == "half":
        say(sock, hello[: len(hello) // 2])
    held.append(sock)
    if len(held) > orders["held"]:
        held.popleft().close()
    if dripping:
        sock, rest = dripping[0]
        dripping.rotate(-1)
        say(sock, bytes([next(rest, 0)]))
print("done", flush=True)
sys.stdin.readline()
