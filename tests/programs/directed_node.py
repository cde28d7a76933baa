"""One process of a tree under test. Does what it is told over a side channel, and tells what it hears.

Arguments: the path of the channel, and the role; a child's role is the name that it was started with.
"""

import faulthandler
import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Client

from ipevents import ipem

LIFECYCLE = ("ready", "online", "offline", "parent", "error")
CEILING_SECONDS = 100.0  # reached only in a deadlock


class Node:
    """What this process does; every public method is a command."""

    def __init__(self, channel, role):
        self.role = role
        self.channel = channel
        self.telling = threading.Lock()
        self.settled = {}
        self.children = {}
        self.plan = {}

    def tell(self, *what):
        with self.telling:
            self.channel.send(what)

    def hear(self, message, *args, **kwargs):
        if message.event == "error" and "'settled'" in str(args[0]):
            return
        shown = [
            {"error": str(arg), "kind": type(arg).__name__} if isinstance(arg, Exception) else arg
            for arg in args
        ]
        record = {
            "event": message.event,
            "type": message.type,
            "from": message.from_,
            "pids": message.pids,
            "to": message.to,
            "route": message.route,
            "args": shown,
            "kwargs": kwargs,
            "exitcode": message.exitcode,
            "parentPid": ipem.parentPid,
            "childsOnline": ipem.childsOnline,
        }
        if message.type and message.event in self.plan.get("then", {}):
            function, *rest = self.plan["then"][message.event]
            getattr(ipem, function)(*rest)
        self.tell("heard", ipem.pid, record)

    def mark(self, message, number):
        self.tell("marked", number, message.from_)

    # Commands

    def prepare(self, plan):
        self.plan = plan
        # Nothing here listens to ``stopping``, so a stop need not leave its children time for that.
        ipem.options({"stopGrace": 50, **plan.get("options", {})})
        for event in LIFECYCLE:
            if event not in plan.get("deaf", ()):
                ipem.on(event, self.hear)
        ipem.on("mark", self.mark)
        if plan.get("listenWhen") == "ready":
            ipem.on("ready", lambda message: self.listen(*plan.get("listen", ())))
        else:
            self.listen(*plan.get("listen", ()))
        if plan.get("start", True):
            ipem.start()

    def listen(self, *events):
        for event in events:
            ipem.on(event, self.hear)

    def listen_and_raise(self, event):
        def listener(message, *args):
            raise RuntimeError("listener failed")

        ipem.on(event, listener)

    def call(self, name, *args, **kwargs):
        getattr(ipem, name)(*args, **kwargs)

    def worker(self, role, **kwargs):
        self.children[role] = child = ipem.worker(name=role, **kwargs)
        return child.pid

    def fork(self, role, **kwargs):
        self.children[role] = child = ipem.fork(__file__, sys.argv[1:], name=role, **kwargs)
        return child.pid

    def state(self):
        names = ("pid", "parentPid", "childsOnline", "isGrandMaster", "isMaster", "isWorker", "netmap")
        return {name: getattr(ipem, name) for name in names}

    def stats(self):
        return ipem.stats()

    def settle(self):
        """Wait until every error and offline so far was told: one more error is behind them."""
        heard = threading.Event()

        def listener(message, error):
            if "'settled'" in str(error):
                heard.set()

        ipem.on("error", listener)
        ipem.sendToChild("settled", "settled")
        heard.wait(CEILING_SECONDS)
        ipem.off("error", listener)

    def exit_with(self, code):
        sys.exit(code)

    def last_words(self, count, end):
        for number in range(count):
            ipem.sendToParents("evt", number)
        if end == "exit":
            sys.exit(0)
        os.kill(os.getpid(), 9)

    def hold_fast(self):
        """Stay alive whatever becomes of the main thread."""
        threading.Thread(target=threading.Event().wait, args=(CEILING_SECONDS,)).start()

    def drop_connections(self):
        """The server's end of every client link is cut."""
        for link in list(ipem._life.public_socket.server._clients):
            link.disconnect()


def main():
    faulthandler.dump_traceback_later(CEILING_SECONDS, exit=True)
    name = multiprocessing.current_process().name
    role = sys.argv[2] if name == "MainProcess" else name
    channel = Client(sys.argv[1], "AF_UNIX")
    node = Node(channel, role)
    channel.send((role, os.getpid()))
    while True:
        try:
            number, command, args, kwargs = channel.recv()
        except EOFError:
            break
        if command == "quit":
            break
        try:
            answer = getattr(node, command)(*args, **kwargs)
        except Exception as exc:
            node.tell("raised", number, type(exc).__name__, str(exc))
        else:
            node.tell("did", number, answer)
    if name == "MainProcess":
        ipem.stop()


main()
