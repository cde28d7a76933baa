"""What this process is called in texts for people, beside its pid."""

from __future__ import annotations

import multiprocessing
import sys


def process_name() -> str:
    """What this process is called in texts for people, beside its pid.

    A child's is what ``worker(name=)`` gave it. Where nobody gave one, the script's; in a REPL or with ``-c``
    multiprocessing's "MainProcess".
    """
    name = multiprocessing.current_process().name
    if name != "MainProcess":
        return name
    path, _, file = (sys.argv[0] if sys.argv else "").rpartition("/")
    if file == "__main__.py":  # python -m package
        file = path.rpartition("/")[2]
    return name if file in ("", "-c", "-m") else file
