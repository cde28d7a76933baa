"""What runs first and last inside a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._runtime.process import Launch


def run(launch: Launch) -> None:
    """The target of every child's ``multiprocessing.Process``: connect, run the program, stay, stop."""
    from ._runtime import lifetime

    lifetime.ignore_interrupt()
    from . import ipem

    childhood = ipem._life.become_child(launch)
    childhood.run(childhood.connect())
