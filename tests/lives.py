"""What tests of starts and stops ask of an emitter."""

from __future__ import annotations

import threading

from ipevents import Emitter
from ipevents._core.state import State

CEILING_SECONDS = 30.0
KEY = "a key for these tests only"


def state_of(emitter: Emitter) -> State:
    return emitter._life.node.state.state


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ipevents-")]


class InThread:
    """A call in a thread of its own; ``result()`` waits and returns what it raised, or None."""

    def __init__(self, call):
        self._raised: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self._call()
        except BaseException as exc:  # whatever it is, the test looks at it
            self._raised = exc

    def result(self):
        self._thread.join(CEILING_SECONDS)
        assert not self._thread.is_alive(), "it does not return"
        return self._raised
