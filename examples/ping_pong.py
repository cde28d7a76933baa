"""Each of seven processes pings once in every direction; each ping is replied to along the way it came."""

import time
from queue import SimpleQueue
from statistics import median

from ipevents import ipem

PONGS = {  # how many a direction brings when the grand master has two children, and each of these two
    "bubble": 17,  # from all above, and from oneself
    "sendToParents": 10,
    "sendToChilds": 10,
    "sendToSiblings": 6,
    "sendToGrandMaster": 7,
    "broadcast": 42,
}
came = SimpleQueue()  # what the grand master is told


def ping_all(message):
    for direction in PONGS:
        getattr(ipem, direction)("ping", direction, time.monotonic())


def play(children=0):
    ipem.on("go", ping_all).on("ping", lambda message, *ping: message.reply("pong", *ping))
    ipem.on("pong", lambda _, way, sent: ipem.sendToGrandMaster("took", way, time.monotonic() - sent))
    for _ in range(children):
        ipem.worker(play, [2 if ipem.isMaster else 0])


ipem.on("online", came.put).on("took", lambda message, *took: came.put(took))
with ipem.options(useSocket=False):
    play(children=2)
    online = [came.get(timeout=60) for _ in range(7)]
    ipem.broadcast("go").emit("go")
    took = [came.get(timeout=60) for _ in range(sum(PONGS.values()))]
for direction, count in PONGS.items():
    seconds = median(seconds for way, seconds in took if way == direction)
    print(f"{direction:18} {count:3} pongs, median {seconds * 1000:.2f} ms")
