"""What a worker can run: lambdas, closures, functions, methods. They travel with all that they refer to."""

from functools import partial

from ipevents import ipem

UNIT = "m"


def answer(what, value):
    """A function of the script, called by the others, which brings ``UNIT`` along."""
    ipem.sendToParents("answer", f"{what:30} {value:3} {UNIT}", ipem.pid)  # the worker's own ipem


def area(width, height=2):
    answer("a function of the script", width * height)


def scaler(factor):
    return lambda value: answer(f"a closure over factor={factor}", value * factor)


class Ruler:
    """The instance travels with its data, and the class with it."""

    def __init__(self, marks):
        self.marks = marks

    def measure(self):
        answer(f"a method bound to {len(self.marks)} marks", max(self.marks) - min(self.marks))


with ipem.options(useSocket=False):
    targets = [lambda: answer("a lambda", 6 * 7), partial(area, 3, 4), partial(area, 3, height=5)]
    for target in (*targets, partial(scaler(10), 7), Ruler([2, 3, 5, 7, 11]).measure):
        with ipem.expecting("answer", timeout=60) as got:
            worker = ipem.worker(target)
        text, pid = got.message.args
        print(f"{text}   in {pid}, a child of {ipem.pid}")
        assert pid == worker.pid
