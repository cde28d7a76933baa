"""What listeners of ``ready`` do in processes below others."""

from __future__ import annotations

from scripts import printed, write

SCRIPT = """
from ipevents import ipem

def leaf():
    ipem.on("ready", lambda message: ipem.sendToGrandMaster("hi", "leaf"))
    ipem.start()

def middle():
    @ipem.on("ready")
    def ready(message):
        ipem.sendToGrandMaster("hi", "middle")
        ipem.worker(leaf)
    ipem.start()

def upper():
    ipem.worker(middle)
    ipem.start()

@ipem.on("online")
def online(message):
    print("online", len(message.pids), flush=True)

@ipem.on("hi")
def hi(message, who):
    print("hi", who, len(message.pids), flush=True)
    if who == "leaf":
        ipem.stop()

ipem.on("error", lambda message, error: print(error))
ipem.options(useSocket=False, restart=False).start()
ipem.worker(upper)
ipem.run()
"""


def test_what_is_sent_in_ready_comes_after_the_online_of_who_sends_it(place):
    assert printed(write(place / "script.py", SCRIPT)) == [
        "online 1",
        "online 2",
        "online 3",
        "hi middle 3",
        "online 4",
        "hi leaf 4",
    ]
