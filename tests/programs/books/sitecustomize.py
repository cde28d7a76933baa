"""Checks the books of each emitter of a process that a test has started, at the end of its life.

Python imports this first. What is wrong goes into the file that conftest.py reads after each test.
"""

from __future__ import annotations

import os
import sys

TARGET = "ipevents._lifecycle.lifecycle"


def tell(words: str) -> None:
    """Note what is wrong, in one write, as other processes do that as well."""
    path = os.environ.get("IPEVENTS_TEST_BOOKS")
    if path is not None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{os.getpid()}: {words}\n".encode())
        os.close(file)


class Finder:
    """Waits for the module with the lives of emitters, and changes it when it has been loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next(spec for spec in specs if spec is not None)
        loads = spec.loader.exec_module

        def exec_module(module):
            loads(module)
            balance = {}
            here = os.path.dirname(os.path.abspath(__file__))
            with open(os.path.join(here, "..", "..", "balance.py")) as file:
                exec(compile(file.read(), "balance.py", "exec"), balance)
            balance["watch"](module.Lifecycle, tell)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
