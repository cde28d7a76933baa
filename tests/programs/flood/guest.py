"""Honest clients, one after another, from one line of input to the next.

Each connects, sends an event, has its answer, and leaves. For each it prints the milliseconds until it was
connected, what went wrong, and whether it was answered.
"""

import itertools
import json
import sys
import threading
import time

from ipevents import Emitter

CEILING_SECONDS = 60.0  # of a wait, reached only in a deadlock

options = json.loads(sys.argv[1])
over = threading.Event()


def visit(number):
    guest = Emitter().options(socket={**options, "onlyConnect": True})
    parent, done = threading.Event(), threading.Event()
    errors, answers = [], []
    guest.on("parent", lambda message, pid: parent.set())
    guest.on("error", lambda message, exc: errors.append(repr(exc)))
    guest.on("done", lambda message, *args: (answers.append(args), done.set()))
    began = time.monotonic()
    guest.start()
    assert parent.wait(CEILING_SECONDS)
    connected = time.monotonic()
    guest.sendToGrandMaster("job", number)
    assert done.wait(CEILING_SECONDS)
    guest.stop()
    took = (connected - began) * 1000
    return {"connected": took, "errors": errors, "answered": answers == [(number,)]}


def wait_for_the_end():
    sys.stdin.readline()
    over.set()


print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=wait_for_the_end, daemon=True).start()
for number in itertools.count():
    print(json.dumps(visit(number)), flush=True)
    if over.is_set():
        break
