"""What runs first and last inside a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._runtime.process import Launch


def run(launch: Launch, descriptors: list[int] | None = None) -> None:
    """The target of every child's ``multiprocessing.Process``: connect, run the program, stay, stop.

    ``descriptors`` are what the arguments of the program refer to.
    """
    from ._runtime import inheritance, lifetime

    lifetime.take_signals()
    inheritance.receive(descriptors or [])
    from . import ipem

    childhood = ipem._life.become_child(launch)
    program = childhood.connect()
    try:
        childhood.run(program)
    except Exception:  # the program's own: multiprocessing prints it under this name, which shall tell whose
        import multiprocessing

        multiprocessing.current_process().name += f" ({ipem.pid})"
        raise
