"""Scripts that a test writes, runs in a process of their own, and judges by what they print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

CEILING_SECONDS = 60.0  # of a script; reached only in a deadlock


def write(path: Path, text: str) -> Path:
    """A script in a file; makes the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run python with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=CEILING_SECONDS,
        cwd=cwd,
        check=False,
    )


def printed(*command: object, cwd: Path | None = None) -> list[str]:
    """The lines that a script prints; it must end with status 0 and an empty stderr."""
    ended = run(*command, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()
