"""What can be run in a worker: lambdas, closures, functions of this script, and the data they hold.

Functions travel by value when ``worker()`` is called, with everything they refer to in this script. The
``ipem`` inside them becomes the worker's own.
"""

from functools import partial

from ipevents import ipem

UNIT = "m"


def answer(what, value):
    """A function of the script, called by the others, which brings ``UNIT`` along."""
    ipem.sendToParents("answer", what, f"{value} {UNIT}", ipem.pid, ipem.parentPid)


def area(width, height=2):
    answer("a function of the script", width * height)


def scaler(factor):
    def scale(value):
        answer(f"a closure over factor={factor}", value * factor)

    return scale


class Ruler:
    """A class of the script: the instance travels with its data, the class with it."""

    def __init__(self, marks):
        self.marks = marks

    def measure(self):
        answer(f"a method bound to {len(self.marks)} marks", max(self.marks) - min(self.marks))


def ask(target, *args):
    """Run a function in a worker and wait for its answer; the worker ends when the function returns."""
    with ipem.expecting("answer", timeout=60) as got:
        worker = ipem.worker(target, args)
    what, value, pid, parent = got.message.args
    assert (pid, parent) == (worker.pid, ipem.pid)
    print(f"{what:30} {value:>5}   its ipem is {pid}, a child of {parent}")
    worker.join(60)


with ipem.options(useSocket=False):
    print(f"{'this script':30} {'':5}   its ipem is {ipem.pid}")
    ask(lambda: answer("a lambda", 6 * 7))
    ask(area, 3, 4)
    ask(partial(area, height=5), 3)
    ask(scaler(10), 7)
    ask(Ruler([2, 3, 5, 7, 11]).measure)
