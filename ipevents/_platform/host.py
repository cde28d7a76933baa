"""What the library knows of the program in which it is a guest."""

from __future__ import annotations

import multiprocessing
import sys


def process_name() -> str:
    """The name of this process in texts for people, where its pid stands beside it.

    In a child the one that ``worker(name=)`` gave it, elsewhere the name of the script; in a REPL and with
    ``-c`` multiprocessing's "MainProcess".
    """
    name = multiprocessing.current_process().name
    if name != "MainProcess":
        return name
    path, _, file = (sys.argv[0] if sys.argv else "").rpartition("/")
    if file == "__main__.py":  # python -m package
        file = path.rpartition("/")[2]
    return name if file in ("", "-c", "-m") else file
