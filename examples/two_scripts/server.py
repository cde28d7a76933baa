"""The one program, ``python server.py [port]``: adds what clients send, and tells all. Ends with Ctrl-C.

Start it before or after the clients (client.py): they wait for it."""

import sys

from ipevents import ipem

total = 0


@ipem.on("online")
def online(message):
    if message.from_ != ipem.pid:
        print(f"server: {message.from_} is there")


@ipem.on("offline")
def offline(message, pid):
    print(f"server: {pid} is gone")


@ipem.on("add")
def add(message, number):
    global total
    total += number
    print(f"server: {message.from_} adds {number}, that makes {total}")
    message.reply("added", number)
    ipem.sendToChilds("total", total)


# A port of its own: programs of one user that use the same port, say the default one, are one tree.
port = int(sys.argv[1]) if len(sys.argv) > 1 else 7171

# No authkey here: both programs read the key file of their user. Those of two users need one key in both.
ipem.options(socket={"port": port}).start()
if not ipem.isGrandMaster:
    sys.exit(f"another server listens on port {port} already")
print("server: listens")
ipem.run()
