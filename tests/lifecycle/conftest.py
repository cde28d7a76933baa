from __future__ import annotations

import pytest
from lives import KEY

from ipevents import Emitter
from ipevents._platform.latches import Latch

Latch().wait(0.0)  # the main thread's first wait makes a pipe that stays for all others


@pytest.fixture
def emitter(port):
    return Emitter().options(socket={"port": port, "host": "127.0.0.1", "authkey": KEY})
