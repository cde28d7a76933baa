"""The other program: sends some numbers to server.py, and ends when all are added.

    python client.py [port [number ...]]

Start it before or after the server, and as often as you like, also several at once.
"""

import sys

from ipevents import ipem

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7171
numbers = [int(text) for text in sys.argv[2:]] or [1, 2, 3]
waiting = list(numbers)


@ipem.on("ready")
def ready(message):
    print(f"client {ipem.pid}: connected to {ipem.parentPid}")


@ipem.on("total")
def heard(message, total):
    print(f"client {ipem.pid}: the total is {total}")


@ipem.on("added")
def added(message, number):
    waiting.remove(number)
    if not waiting:
        ipem.stop()


# onlyConnect: never listen, wait for the server. Without it the program that is first would be the server.
ipem.options(socket={"port": port, "onlyConnect": True, "delayReconnect": 200}).start()
for number in numbers:
    ipem.sendToGrandMaster("add", number)  # before the first connection it waits for that
ipem.run()
print(f"client {ipem.pid}: all added")
