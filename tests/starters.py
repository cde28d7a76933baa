"""The same code in several threads or processes at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path

STARTERS = 8


def in_threads(function):
    """Run ``function`` in several threads at the same moment; return what each returned."""
    barrier = threading.Barrier(STARTERS)
    results = []

    def run():
        barrier.wait()
        results.append(function())

    threads = [threading.Thread(target=run) for _ in range(STARTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == STARTERS
    return results


def started(code: str, count: int) -> list[subprocess.Popen[str]]:
    """Start processes that stand right before ``code`` until they are released."""
    imports = "".join(f"from ipevents._transport.{name} import *\n" for name in ("keys", "private_directory"))
    program = f"{imports}print(end='+', flush=True)\ninput()\n{code}"
    root = str(Path(__file__).resolve().parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, "TMPDIR": tempfile.gettempdir()},
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.read(1) == "+"
    return processes


def release(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def in_processes(code: str) -> list[str]:
    """Run ``code`` in several processes, let go at the same moment; return what each printed."""
    processes = started(code, STARTERS)
    release(processes)
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * STARTERS
    return outputs


def in_child(function):
    """Run ``function`` in a process forked here, and raise AssertionError with its traceback if it raises."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads, which wait
        pid = os.fork()
    if not pid:
        try:
            function()
            os._exit(0)
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    assert (os.waitpid(pid, 0)[1], text) == (0, ""), text
