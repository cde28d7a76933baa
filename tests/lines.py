"""A pipe between a test and a child: what the child notes, and what it is told, beside all links."""

from __future__ import annotations

from multiprocessing import Pipe

CEILING = 60.0  # of every wait; reached only in a deadlock


class Line:
    """``there`` is the child's end, for the arguments of its function. A restarted child gets it again."""

    def __init__(self):
        self.here, self.there = Pipe()

    def next(self):
        """What the child has noted next."""
        assert self.here.poll(CEILING), "the child notes nothing"
        return self.here.recv()

    def is_empty(self):
        return not self.here.poll(0)

    def tell(self, what):
        self.here.send(what)

    def close(self):
        self.here.close()
        self.there.close()


def started(top, target, *args, **options):
    """Start a child, and wait for its online."""
    with top.expecting("online", CEILING, lambda message: message.from_ != top.pid):
        return top.worker(target, args, **options)


def holds(line, threads):
    """A child that answers "held": it notes the argument, and answers what it is told. And "echo", "mark"."""
    from scripts import wait_until

    from ipevents import ipem

    @ipem.answer("held", threads=threads)
    def held(message, what=None):
        line.send(what)
        return line.recv()

    @ipem.answer("echo")
    def echo(message, what=None):
        return what

    @ipem.answer("mark", threads=1)
    def mark(message):
        line.send("mark")
        wait_until(ipem.cancelled)
        line.send("cancelled")


def fenced(child, line):
    """Ask for a mark; returns what cancels it, and waits until the child has seen that.

    It takes the same way as other cancels, so those that were sent before have arrived then.
    """
    answer = child.requestAsync("mark")
    assert line.next() == "mark"

    def fence():
        answer.cancel()
        assert line.next() == "cancelled"

    return fence
