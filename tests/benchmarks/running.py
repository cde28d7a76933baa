"""What report, scaling and costs share: running one program after the other, tables, plots."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 300.0
OURS = "ipevents"


@contextlib.contextmanager
def environment():
    """An environment for the programs: compiled modules are kept, outside of the tree."""
    with tempfile.TemporaryDirectory(prefix="ipevents-bench-") as place:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": place}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        yield env


def call(command, env):
    """Run a program and return its last line of output as JSON; None if it fails, after saying how."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return _failed(command, f"no end after {TIMEOUT_SECONDS:.0f} s")
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        return _failed(command, f"status {process.returncode}: {err.strip()[-300:]}")
    try:
        return json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return _failed(command, f"no result in {out[-300:]!r}")


def _failed(command, why):
    print("!", " ".join(map(str, command[1:])), "failed:", why, file=sys.stderr, flush=True)


def has(module):
    """Whether a module can be imported, found out without importing it here."""
    import importlib.util

    return importlib.util.find_spec(module) is not None


def pyplot():
    """matplotlib's pyplot for files; None, after saying so, where it is missing."""
    if not has("matplotlib"):
        print("No plot: matplotlib is not installed (pip install -e '.[bench]').")
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def table(rows, head, left=2):
    """Rows of texts in columns, the first ``left`` to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [
            str(cell).ljust(width) if i < left else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def number(value):
    """A number with three significant digits or so, for people."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def progress(text):
    """What is going on, in one line of a terminal, until the next one."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
