"""Requests with answers: one, many at a time, to all, and what comes in place of an answer."""

import os
from concurrent.futures import as_completed

from ipevents import AnswererLost, NoAnswerer, RequestTimeout, ipem


def work():
    @ipem.answer("divide", threads=2)
    def divide(message, a, b):
        return a / b

    @ipem.answer("wait", threads=1)
    def wait(message):
        ipem.waitFor("never")  # a stop ends it

    @ipem.answer("crash")
    def crash(message):
        os._exit(3)


with ipem.options(useSocket=False, delayRestart=100):
    workers = [ipem.worker(work, name=name) for name in ("one", "two")]
    print("one answer:", workers[0].request("divide", 1, 4))

    answers = [worker.requestAsync("divide", 6, n) for n in (1, 2) for worker in workers]
    print("many:", sorted(answer.result() for answer in as_completed(answers)))

    print("of all:", sorted(value for _, value in ipem.requestAll("divide", 9, 3)))

    wrong = [("divide", 60, 1, 0), ("multiply", 60, 1, 4), ("wait", 0.5), ("crash", 60)]
    for event, timeout, *args in wrong:
        try:
            workers[0].request(event, *args, timeout=timeout)
        except (ArithmeticError, NoAnswerer, RequestTimeout, AnswererLost) as exc:
            print(f"{type(exc).__name__}: {exc}")

    print("the next process answers:", workers[0].request("divide", 8, 2))
