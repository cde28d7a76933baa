"""What the main thread of a pool's worker runs: the initializer, then one job after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._platform.memory import resident_bytes
from .asking import Asking


def work(
    asking: Asking,
    event: str,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    max_jobs: int | None,
    max_memory: int | None,
) -> None:
    """Do the jobs that come as requests of ``event``, until a stop or a limit.

    ``max_jobs`` is how many jobs a worker does at most, and ``max_memory`` after how many bytes of memory it
    begins no other one. Raises what the initializer raises.
    """
    if initializer is not None:
        initializer(*initargs)
    node = asking.node

    def may_go_on(done: int) -> bool:
        if max_jobs is not None and done >= max_jobs:
            return False
        return max_memory is None or resident_bytes() <= max_memory

    bench = asking.answering.add_bench(event)
    try:
        node.dispatcher.add(event, bench.receive)
        if not node.announced:
            node.on_first_use()
        bench.run(may_go_on)
    finally:
        asking.answering.close_bench(event)
        node.dispatcher.remove(event, bench.receive)
